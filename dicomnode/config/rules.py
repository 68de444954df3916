"""The conditions of a route's ``when``: data, never evaluated code."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydicom.datadict import dictionary_VR, tag_for_keyword

Scalar = str | int | float
_NOT_COMPARABLE = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "OB or OW", "UN"})


def _keyword(value: str) -> str:
    tag = tag_for_keyword(value)
    if tag is None:
        raise ValueError(f"{value!r} is not a DICOM keyword")
    if dictionary_VR(tag) in _NOT_COMPARABLE:
        raise ValueError(f"{value!r} is a sequence or bulk data; a rule compares single values only")
    return value


Keyword = Annotated[str, AfterValidator(_keyword)]
"""A DICOM keyword (PS3.6) whose values can be compared."""


class Condition(BaseModel):
    """What one DICOM keyword has to satisfy. All operators that are given must hold.

    ``equals``: one of the Series' values equals one of these (case-insensitive; numbers by value).
    ``regex``: one of the values matches somewhere (case-insensitive). ``min``, ``max``: there is a number, and
    every number lies within the bounds. ``exists``: the keyword has (or has not) a value. ``not_``: the inner
    condition does not hold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    equals: tuple[Scalar, ...] | None = None
    regex: str | None = None
    min: float | None = None
    max: float | None = None
    exists: bool | None = None
    not_: Condition | None = Field(default=None, alias="not")

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("expected a value, a list of values or a table of operators, not true or false")
        if isinstance(value, (str, int, float)):
            return {"equals": (value,)}
        if isinstance(value, (list, tuple)):
            return {"equals": tuple(value)}
        if isinstance(value, dict) and not value:
            raise ValueError(
                "an empty condition matches nothing: name an operator (equals, regex, min, max, exists, not)"
            )
        return value

    @field_validator("equals", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        many = (value,) if isinstance(value, (str, int, float)) else value
        if many is not None and len(many) == 0:
            raise ValueError("an empty list matches nothing")
        return many

    @field_validator("regex")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _bounds(self) -> Condition:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


def not_empty(when: dict[str, Condition]) -> dict[str, Condition]:
    """``when`` with a condition in it. Raises ValueError otherwise."""
    if not when:
        raise ValueError("this would take every series; say that with Modality = { exists = true }")
    return when

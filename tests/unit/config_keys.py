"""Every key that a configuration may have, read off the pydantic classes."""

from __future__ import annotations

import typing
from collections.abc import Iterator

from pydantic import BaseModel

from dicomnode.config import Condition, Config

Key = tuple[str, ...]


def config_keys() -> dict[Key, typing.Any]:
    """Path of every key, for example ("peer", "tls", "ca"), to its pydantic field; conditions of ``when`` left out."""
    return dict(_keys(Config, ()))


def operators() -> set[str]:
    """The operators of a condition, as they are spelled in the file."""
    return {field.alias or name for name, field in Condition.model_fields.items()}


def _keys(table: type[BaseModel], path: Key) -> Iterator[tuple[Key, typing.Any]]:
    for name, field in table.model_fields.items():
        yield (*path, name), field
        for inner in _tables(field.annotation):
            if inner is not Condition:
                yield from _keys(inner, (*path, name))


def _tables(annotation: typing.Any) -> dict[type[BaseModel], None]:
    """In the order of the annotation: each process of a test run has to find the same tests in the same order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation: None}
    return {table: None for part in typing.get_args(annotation) for table in _tables(part)}

"""The model card: what a model is, whose data made it, what was measured, and the hashes of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dicomnode.errors import ConfigError

CARD_FILE = "card.json"
NOTICE = "Research only. Not a medical device."


class Seen(BaseModel):
    """What training has seen of one DICOM attribute: ``values`` (compared without case), or a range of numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: list[str] = Field(default_factory=list)
    least: float | None = None
    greatest: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Seen:
        if not self.values and self.least is None and self.greatest is None:
            raise ValueError("give values, least or greatest")
        return self

    def holds(self, value: str | float) -> bool:
        """Whether ``value`` is among those that were seen; a text is in no range."""
        if str(value).strip().casefold() in {known.strip().casefold() for known in self.values}:
            return True
        if isinstance(value, str) or (self.least is None and self.greatest is None):
            return False
        low = self.least is None or value >= self.least
        return low and (self.greatest is None or value <= self.greatest)


class ModelCard(BaseModel):
    """``card.json``. ``sha256``: hex digest of weights.safetensors, ``calibration_sha256`` of calibration.json.

    ``preprocessing`` and ``architecture`` are read by the detector, ``data`` and ``metrics`` by people. ``seen``: DICOM
    keyword to what training has seen of it, for the acquisition gate; ``seen_counts``: a series with another value is
    of an unusual acquisition, otherwise that is a note.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    version: str = Field(min_length=1, max_length=32)
    detector: str = Field(min_length=1)
    description: str = ""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    calibration_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    licence: str = Field(min_length=1)
    non_commercial: bool = False
    attribution: list[str] = Field(default_factory=list)
    notice: str = NOTICE
    intended_use: str = Field(min_length=1)
    limits: list[str] = Field(default_factory=list)
    preprocessing: dict[str, Any]
    architecture: dict[str, Any]
    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    seen: dict[str, Seen] = Field(default_factory=dict)
    seen_counts: bool = False


def read_card(folder: Path) -> ModelCard:
    """The card of a model folder. Raises ConfigError when it is missing or not valid."""
    path = folder / CARD_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{folder.name}: {CARD_FILE} is missing") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.name}: {CARD_FILE} cannot be read: {error}") from error
    try:
        return ModelCard.model_validate(content)
    except ValidationError as error:
        places = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{folder.name}: {CARD_FILE} is not valid: {places}") from error


def write_card(folder: Path, card: ModelCard) -> None:
    """Write ``card.json`` into ``folder``."""
    text = json.dumps(card.model_dump(), indent=2, ensure_ascii=False)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")

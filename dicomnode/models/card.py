"""The model card: what a model is, whose data made it, what was measured, and the hashes of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicomnode.errors import ConfigError

CARD_FILE = "card.json"
NOTICE = "Research only. Not a medical device."


class ModelCard(BaseModel):
    """``card.json``. ``sha256``: hex digest of weights.safetensors, ``calibration_sha256`` of calibration.json.

    ``preprocessing`` and ``architecture`` are read by the detector, ``data`` and ``metrics`` by people.
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

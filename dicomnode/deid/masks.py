"""Rules that say where a device of a site writes into its pictures, and what a profile says on pixels at all."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydicom.dataset import Dataset

from dicomnode.errors import ConfigError

_Text = Annotated[str, Field(min_length=1, max_length=64)]
_Size = Annotated[int, Field(ge=1, le=65535)]
_Place = Annotated[int, Field(ge=0)]
_Region = Annotated[tuple[_Place, _Place, _Size, _Size], Field(strict=False)]
_Fill = Literal["black"] | Annotated[int, Field(ge=0, le=65535)]


class MaskRule(BaseModel):
    """One ``[[mask]]``: the regions (x, y, width, height in pixels) that a device of this geometry writes into.

    The keys are named as the attributes that must agree (PS3.3 C.7.5.1, C.7.6.3); case and padding do not count.
    ``fill``: a stored value, or black as it is displayed.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    Manufacturer: _Text
    ManufacturerModelName: _Text
    Rows: _Size
    Columns: _Size
    SOPClassUID: _Text | None = None
    Modality: _Text | None = None
    SoftwareVersions: tuple[_Text, ...] = Field(default=(), strict=False)
    regions: tuple[_Region, ...] = Field(min_length=1, strict=False)
    fill: _Fill = "black"

    @model_validator(mode="after")
    def _inside(self) -> MaskRule:
        if self.SOPClassUID is None and self.Modality is None:
            raise ValueError("name a SOPClassUID or a Modality")
        for x, y, width, height in self.regions:
            if x + width > self.Columns or y + height > self.Rows:
                raise ValueError("a region reaches beyond Rows and Columns")
        return self

    def device(self, dataset: Dataset) -> bool:
        """Whether ``dataset`` comes from the device that the rule is for, whatever the geometry."""
        asked = ("Manufacturer", "ManufacturerModelName", "SOPClassUID", "Modality")
        wanted = ((key, getattr(self, key)) for key in asked)
        if not all(value is None or _plain(value) == _plain(dataset.get(key)) for key, value in wanted):
            return False
        versions = {_plain(version) for version in self.SoftwareVersions}
        return not versions or _plain(dataset.get("SoftwareVersions")) in versions

    def applies(self, dataset: Dataset) -> bool:
        """Whether device and geometry agree."""
        return self.device(dataset) and (dataset.get("Rows"), dataset.get("Columns")) == (self.Rows, self.Columns)


class PixelSettings(BaseModel):
    """The table ``[pixels]`` of a profile and its ``[[mask]]`` rules.

    ``detect``: look for writing in all images, or in none. ``ocr``: never; auto: with an engine if one is installed,
    where pictures are single ones and no slices; all: wherever writing is looked for. ``mask_found_text``: overwrite
    writing that no rule covers. ``mask_outside_regions``: of ultrasound keep only what (0018,6011) names.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    detect: Literal["all", "none"] = "all"
    ocr: Literal["auto", "all", "none"] = "auto"
    mask_found_text: bool = False
    mask_outside_regions: bool = False
    masks: tuple[MaskRule, ...] = Field(default=(), strict=False)


def pixel_settings(table: dict[str, Any], rules: Sequence[Any], where: str, folder: Path | None) -> PixelSettings:
    """Of ``[pixels]`` and ``[[mask]]``; ``masks`` in the table names a file with more rules, relative to ``folder``.

    Raises ConfigError with file and key.
    """
    table, rules = dict(table), list(rules)
    file = table.pop("masks", None)
    if file is not None:
        rules += _file_rules(file, where, folder)
    try:
        return PixelSettings.model_validate({**table, "masks": rules})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{where}: {_table_of(place)}: {first['msg']}") from None


def _table_of(place: str) -> str:
    return place.replace("masks.", "mask.", 1) if place.startswith("masks.") else f"pixels.{place}"


def _file_rules(file: Any, where: str, folder: Path | None) -> list[Any]:
    if not isinstance(file, str) or folder is None:
        raise ConfigError(f"{where}: pixels.masks: has to be the name of a file, and needs a profile that is a file")
    path = folder / file
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: the masks cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    rules = content.pop("mask", [])
    if content or not isinstance(rules, list):
        raise ConfigError(f"{path}: a file of masks holds [[mask]] and nothing else")
    return rules


def _plain(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else "\\".join(map(str, value)) if isinstance(value, (list, tuple)) else None
    if text is None:
        text = "\\".join(map(str, value)) if hasattr(value, "__iter__") else str(value)
    return " ".join(text.split()).casefold()

"""``[hosted.NAME]``: models that others trained, run as detectors; each named by the SHA-256 of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from dicomnode.config.rules import Condition, Keyword
from dicomnode.config.table import Table

HostedName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Share = Annotated[float, Field(gt=0, le=1)]
Share100 = Annotated[float, Field(ge=0, le=100)]


def _public(scheme: str) -> str:
    if scheme.startswith("99"):
        raise ValueError("a private scheme (99…) says nothing to a reader of the report")
    return scheme


class LabelCode(Table):
    """A coded concept: Code Value, Coding Scheme Designator, Code Meaning (PS3.3 8.8)."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_public)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class HostedLabel(Table):
    """One output of a model that is reported; an output without a label is not.

    ``index``: channel of the output, or value in a label map. ``threshold``: score from which the label is present.
    ``anatomy``: a normal structure, not an abnormality. ``separate``: every connected part is a finding of its own.
    ``min_mm3``: a segmentation that is smaller does not count.
    """

    index: Annotated[int, Field(ge=0)]
    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\\\x00-\x1f]+$")]
    threshold: Share | None = None
    code: LabelCode | None = None
    anatomy: bool = False
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")] | None = None
    separate: bool = False
    min_mm3: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _anatomy_has_a_code(self) -> HostedLabel:
        if self.anatomy and self.code is None:
            raise ValueError("a normal structure needs its code: { value = …, scheme = …, meaning = … }")
        return self


class HostedInput(Table):
    """How images become the network's input.

    ``size``: (rows, columns), or (planes, rows, columns) with ``dimensions`` 3; empty: as the images are. At most one
    of ``window`` (centre, width), ``percentiles`` (low, high) and ``stored`` (all that the stored bits can express)
    is brought to ``range``; ``mean`` and ``sd`` come last. ``square``: cut to the middle square first.
    """

    dimensions: Literal[2, 3] = 2
    size: tuple[Annotated[int, Field(ge=8, le=4096)], ...] = ()
    channels: Literal[1, 3] = 1
    square: bool = False
    window: tuple[float, Annotated[float, Field(gt=0)]] | None = None
    percentiles: tuple[Share100, Share100] | None = None
    stored: bool = False
    range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = ()
    sd: tuple[Annotated[float, Field(gt=0)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> HostedInput:
        if self.size and len(self.size) != self.dimensions:
            raise ValueError("size has one number for each dimension")
        if sum((self.window is not None, self.percentiles is not None, self.stored)) > 1:
            raise ValueError("give one of window, percentiles and stored")
        if self.percentiles is not None and self.percentiles[0] >= self.percentiles[1]:
            raise ValueError("percentiles go from a lower to a higher one")
        if self.range[0] >= self.range[1]:
            raise ValueError("range goes from a lower to a higher value")
        if len(self.mean) != len(self.sd) or len(self.mean) not in (0, 1, self.channels):
            raise ValueError("give mean and sd together, one of each or one for each channel")
        return self


def _names_modality(accept: dict[str, Condition]) -> dict[str, Condition]:
    if "Modality" not in accept:
        raise ValueError('say at least which Modality the model is for: Modality = "CT"')
    return accept


class _Hosted(Table):
    path: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    accept: Annotated[dict[Keyword, Condition], AfterValidator(_names_modality)]
    licence: Annotated[str, Field(min_length=1, max_length=64)]
    version: Annotated[str, Field(min_length=1, max_length=32)] = "1"
    description: Annotated[str, Field(max_length=200)] = ""
    threshold: Share = 0.5
    labels: Annotated[tuple[HostedLabel, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _labels_differ(self) -> _Hosted:
        indices, names = [label.index for label in self.labels], [label.name for label in self.labels]
        if len(set(indices)) < len(indices) or len(set(names)) < len(names):
            raise ValueError("two labels have the same index or the same name")
        return self


class HostedBundle(_Hosted):
    """A MONAI bundle: a folder with configs/ and models/. ``path``: the folder; ``sha256``: of all its files."""

    kind: Literal["bundle"]


class _Network(_Hosted):
    input: HostedInput = Field(default_factory=HostedInput)
    output: Literal["scores", "segmentation"]
    activation: Literal["none", "sigmoid", "softmax"] = "none"


class HostedNetwork(_Network):
    """A network in one file that holds its own graph."""

    kind: Literal["torchscript", "export", "onnx"]


class HostedStateDict(_Network):
    """Weights alone, for an architecture that the node knows, under torchvision's or torchxrayvision's names."""

    kind: Literal["state-dict"]
    architecture: Literal["densenet121"]

    @model_validator(mode="after")
    def _classifies(self) -> HostedStateDict:
        if self.output != "scores" or self.input.dimensions != 2:
            raise ValueError('densenet121 classifies images: output = "scores", two dimensions')
        return self


class HostedCommand(_Hosted):
    """A program with its own environment. ``path``: its program file or model folder, which ``sha256`` is of.

    ``command``: program and arguments, no shell; {path}, {input} and {output} are replaced. ``gives``: what lies in
    {input}. ``output``: what it leaves in {output}.
    """

    kind: Literal["command"]
    command: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    gives: Literal["nifti", "dicom"] = "nifti"
    output: Literal["scores", "segmentation"]
    timeout_s: Annotated[float, Field(gt=0, le=1500)] = 600.0

    @model_validator(mode="after")
    def _goes_through_folders(self) -> HostedCommand:
        for place in ("{input}", "{output}"):
            if not any(place in word for word in self.command):
                raise ValueError(f"command has to be told where to read and write: {place} is missing")
        return self


def _kind(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return f"kind {kind}"


Hosted = Annotated[
    Annotated[HostedBundle, Tag("kind bundle")]
    | Annotated[HostedNetwork, Tag("kind torchscript")]
    | Annotated[HostedNetwork, Tag("kind export")]
    | Annotated[HostedNetwork, Tag("kind onnx")]
    | Annotated[HostedStateDict, Tag("kind state-dict")]
    | Annotated[HostedCommand, Tag("kind command")],
    Discriminator(_kind),
]
"""The tags are no key of a section, so that a fault inside one is reported on its own line."""

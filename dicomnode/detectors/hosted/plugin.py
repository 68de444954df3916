"""A section of the configuration as a detector: what it accepts, and how it is loaded. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dicomnode.config.hosted import Hosted, HostedBundle, HostedCommand
from dicomnode.config.matching import unmet
from dicomnode.detectors.acceptance import accept, refuse
from dicomnode.detectors.contract import Acceptance, Detector, LoadedDetector, ModelIdentity
from dicomnode.detectors.hosted.digest import require
from dicomnode.dicom.summary import SeriesSummary

_KINDS = {
    "bundle": "MONAI bundle",
    "torchscript": "TorchScript network",
    "export": "exported torch network",
    "onnx": "ONNX network",
    "state-dict": "network from a state dict",
    "command": "external program",
}


@dataclass(frozen=True, slots=True)
class HostedDetector:
    """A hosted model under its name in the configuration. ``settings``: its section; the hash has been checked."""

    name: str
    settings: Hosted

    @property
    def version(self) -> str:
        return self.settings.version

    @property
    def default_model(self) -> str:
        return self.name

    @property
    def description(self) -> str:
        labels = ", ".join(label.name for label in self.settings.labels)
        return self.settings.description or f"hosted {_KINDS[self.settings.kind]}: {labels}"

    @property
    def own_model(self) -> ModelIdentity:
        """The identity that results name: the weights' hash is that of the section."""
        return ModelIdentity(self.name, self.version, self.settings.sha256, self.settings.licence)

    @property
    def location(self) -> Path:
        """The file or folder of the model."""
        return self.settings.path

    def accepts(self, summary: SeriesSummary) -> Acceptance:
        """Whether every condition of the section's ``accept`` holds; the reason names the first that does not."""
        for keyword, condition in self.settings.accept.items():
            if why_not := unmet(condition, summary.values(keyword)):
                return refuse(f"{keyword}: {why_not}; {self.name} is configured for other series", on=keyword)
        return accept(f"{', '.join(self.settings.accept)} as configured for {self.name}")

    def load(self, model_folder: Path, accelerator: str) -> LoadedDetector:
        """Load the model from ``model_folder`` (the section's path). Nothing of it is read before its hash holds.

        Raises ConfigError for another hash, a missing package or a model that cannot be hosted, with the reason.
        """
        if isinstance(self.settings, HostedBundle):
            from dicomnode.detectors.hosted.bundle_run import load_bundle

            return load_bundle(self.own_model, self.settings, model_folder, accelerator)
        if isinstance(self.settings, HostedCommand):
            from dicomnode.detectors.hosted.command import load_command

            return load_command(self.own_model, self.settings, model_folder)
        from dicomnode.detectors.hosted.network import load_network

        return load_network(self.own_model, self.settings, model_folder, accelerator)


def hosted_sources(sections: Mapping[str, Hosted]) -> Iterator[tuple[str, Callable[[], Detector]]]:
    """For discovery: the name of each section, and how to get its detector (raises ConfigError for a wrong hash)."""
    for name, settings in sections.items():
        yield name, partial(host, name, settings)


def host(name: str, settings: Hosted) -> Detector:
    """The detector of one section. Raises ConfigError when its files have not the SHA-256 that the section allows."""
    require(settings.path, settings.sha256)
    return HostedDetector(name, settings)

"""A hosted network as a detector: images in, labels with their scores, places and maps out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dicomnode.config.hosted import HostedLabel, HostedNetwork, HostedStateDict
from dicomnode.detectors.contract import Array, DetectionResult, Mask, ModelIdentity, Outcome, Volume
from dicomnode.detectors.hosted.answer import Scale, Told, answer, enough, threshold_of
from dicomnode.detectors.hosted.forward import Network, load_forward
from dicomnode.detectors.hosted.picture import onto_plane, onto_stack, stack_to_network, to_network
from dicomnode.detectors.hosted.places import grad_cam, occlusion, region
from dicomnode.errors import ConfigError

Settings = HostedNetwork | HostedStateDict
_BATCH = 16
_UNITS = {
    "none": "output of the model as it is, held to 0..1",
    "sigmoid": "sigmoid of the model's output",
    "softmax": "softmax probability of the model",
}


class HostedNetworkDetector:
    """A ``LoadedDetector`` around one network. ``settings``: with thresholds that the weights may have brought."""

    def __init__(self, identity: ModelIdentity, settings: Settings, network: Network) -> None:
        self.model = identity
        self.accelerator = network.accelerator
        self.settings = settings
        self._network = network
        self._scale = Scale(f"{_UNITS[settings.activation]}, not calibrated by this node")

    def detect(self, volume: Volume) -> DetectionResult:
        """Analyse one Volume; NOT_ANALYSED where it does not fit the model, FAILED where its output does not."""
        if self.settings.input.dimensions == 3:
            if volume.slice_spacing is None or len({plane.shape for plane in volume.planes}) > 1:
                return DetectionResult(Outcome.NOT_ANALYSED, reason="the images form no regular stack")
            raw = self._activated(self._network.forward(stack_to_network(volume.planes, self.settings.input)[None]))
            wrong = self._misfit(raw, 3)
            told = [] if wrong else self._of_stack(volume, raw[0])
        else:
            outputs = list(self._outputs(volume))
            wrong = next((text for raw in outputs if (text := self._misfit(raw, 2))), "")
            told = [] if wrong else self._of_planes(volume, [raw[0] for raw in outputs])
        if wrong:
            return DetectionResult(Outcome.FAILED, reason=wrong)
        return answer(self.model.name, self.settings, volume, told, self._scale, self._facts())

    def _facts(self) -> dict[str, str]:
        facts: dict[str, str] = {"format": self.settings.kind, "activation": self.settings.activation}
        if self.settings.output == "scores":
            facts["place of a label"] = "Grad-CAM" if self._network.module is not None else "occlusion"
        return facts

    def _outputs(self, volume: Volume) -> Iterator[Array]:
        """The activated output of each plane by itself, shape (1, labels, …): an answer never depends on a batch."""
        for plane in volume.planes:
            yield self._activated(self._network.forward(to_network(plane, self.settings.input)[None]))

    def _activated(self, raw: Array) -> Array:
        values = raw.astype(np.float64)
        if self.settings.activation == "sigmoid":
            values = 1.0 / (1.0 + np.exp(-np.clip(values, -60.0, 60.0)))
        elif self.settings.activation == "softmax" and values.ndim > 1:
            powers = np.exp(values - values.max(axis=1, keepdims=True))
            values = powers / powers.sum(axis=1, keepdims=True)
        return np.clip(np.nan_to_num(values), 0.0, 1.0).astype(np.float32)

    def _misfit(self, raw: Array, dimensions: int) -> str:
        """Why an output is not what the section describes; empty when it is."""
        axes = 2 + (dimensions if self.settings.output == "segmentation" else 0)
        if raw.ndim != axes:
            return f"the network's output has {raw.ndim} axes, {self.settings.output} has {axes}"
        largest = max(label.index for label in self.settings.labels)
        if raw.shape[1] <= largest:
            return f"the network has {raw.shape[1]} outputs, a label asks for number {largest}"
        return ""

    def _of_stack(self, volume: Volume, output: Array) -> list[Told]:
        n = len(volume.planes)
        if self.settings.output == "scores":
            nowhere: list[None] = [None] * n
            return [Told(label, [float(output[label.index])] * n, nowhere, nowhere) for label in self.settings.labels]
        rows, columns = volume.planes[0].shape
        return [
            self._segmented(label, list(onto_stack(output[label.index], (n, rows, columns))), volume)
            for label in self.settings.labels
        ]

    def _of_planes(self, volume: Volume, outputs: list[Array]) -> list[Told]:
        if self.settings.output == "scores":
            return [self._classified(label, volume, outputs) for label in self.settings.labels]
        pairs = list(zip(volume.planes, outputs, strict=True))
        return [
            self._segmented(
                label, [onto_plane(output[label.index], plane, self.settings.input) for plane, output in pairs], volume
            )
            for label in self.settings.labels
        ]

    def _segmented(self, label: HostedLabel, maps: list[Array], volume: Volume) -> Told:
        """A label whose probability is known for each pixel; its score is the greatest of them."""
        threshold = threshold_of(label, self.settings)
        masks: list[Mask | None] = [own if (own := one >= threshold).any() else None for one in maps]
        scores = [float(one.max()) for one in maps]
        if not enough(label, masks, volume):
            return Told(label, [0.0] * len(maps), [None] * len(maps), [None] * len(maps))
        return Told(label, scores, masks, maps)

    def _classified(self, label: HostedLabel, volume: Volume, outputs: list[Array]) -> Told:
        """A label of whole images; where it is present, the place that speaks for it on the strongest image."""
        scores = [float(output[label.index]) for output in outputs]
        masks: list[Mask | None] = [None] * len(scores)
        heat: list[Array | None] = [None] * len(scores)
        top = int(np.argmax(scores))
        if scores[top] >= threshold_of(label, self.settings):
            found = self._place(to_network(volume.planes[top], self.settings.input), label.index)
            if found is not None:
                on_plane = onto_plane(found, volume.planes[top], self.settings.input)
                mask = region(on_plane)
                if mask.any():
                    masks[top], heat[top] = mask, on_plane * scores[top]
        return Told(label, scores, masks, heat)

    def _place(self, image: Array, index: int) -> Array | None:
        if self._network.module is not None:
            return grad_cam(self._network.module, image, index, self.accelerator)
        return occlusion(lambda batch: self._activated(self._one_by_one(batch)), image, index)

    def _one_by_one(self, batch: Array) -> Array:
        """Networks that were traced with a batch of one take no other."""
        return np.concatenate([self._network.forward(image[None]) for image in batch])


def load_network(identity: ModelIdentity, settings: Settings, path: Path, accelerator: str) -> HostedNetworkDetector:
    """The detector of a section. Raises ConfigError for another hash, or a file that does not load."""
    network = load_forward(settings, path, accelerator)
    return HostedNetworkDetector(identity, _with_thresholds(settings, network.thresholds), network)


def _with_thresholds(settings: Settings, thresholds: tuple[float, ...]) -> Settings:
    """The section with torchxrayvision's thresholds (``op_threshs``) for the labels that name none of their own."""
    if not thresholds:
        return settings
    largest = max(label.index for label in settings.labels)
    if largest >= len(thresholds):
        raise ConfigError(f"the weights have {len(thresholds)} outputs, a label asks for number {largest}")
    labels = tuple(
        label.model_copy(update={"threshold": thresholds[label.index]})
        if label.threshold is None and 0.0 < thresholds[label.index] <= 1.0
        else label
        for label in settings.labels
    )
    return settings.model_copy(update={"labels": labels})

"""What the methods on handcrafted features share: features kept, model refitted, one kind of map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.features import FEATURE_NAMES, handcrafted
from dicomnode.detectors.methods.classical.scaling import Scale, healthy_scale
from dicomnode.detectors.methods.classical.windows import (
    WINDOW_CHANNELS,
    Places,
    enlarged,
    healthy_places,
    kept_places,
    shrunk,
    window_features,
)
from dicomnode.detectors.methods.contract import Judgement, Material, Planes, Run, Settings, Tensors
from dicomnode.errors import ConfigError

S = TypeVar("S", bound=Settings)


class FeatureMethod(ABC, Generic[S]):
    """A score from the handcrafted features of a plane, by a model of the healthy ones.

    Kept are the healthy features, shape (n, k) float32, and what is usual at every place; ``restore`` fits the model
    again, with a fixed seed. The map does not come from that model, which knows whole planes only: it is the
    root mean square deviation of local mean, standard deviation and gradient from the healthy ones at that place.
    """

    least = 8
    """Fewest healthy planes."""
    channels = WINDOW_CHANNELS
    """Local values per place."""

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self._features: Array | None = None
        self._scale: Scale | None = None
        self._places: Places | None = None

    @abstractmethod
    def learn(self, features: Array) -> None:
        """Fit the model to standardised healthy features, shape (n, k); the same features give the same model."""

    @abstractmethod
    def distances(self, features: Array) -> Array:
        """How far standardised features, shape (n, k), are from healthy; shape (n,)."""

    def local_values(self, planes: Planes) -> Array:
        """What the map compares at every place, shape (channels, n, size, size)."""
        return window_features(planes)

    def learn_places(self, planes: Planes) -> None:
        """Take over what is usual at every place from healthy ``planes`` on the method's own grid."""
        self._places = healthy_places(self.local_values(planes), planes)

    def place_maps(self, planes: Planes) -> Array:
        """Maps of ``planes`` on the method's own grid, same shape; 0 outside the organ."""
        return known(self._places).maps(self.local_values(planes), planes)

    def place_tensors(self) -> Tensors:
        return known(self._places).tensors()

    def restore_places(self, tensors: Tensors) -> None:
        self._places = kept_places(tensors, self.channels, self.settings.size)

    def fit(self, material: Material, run: Run) -> None:
        if len(material.healthy) < self.least:
            raise ConfigError(f"at least {self.least} healthy planes are needed")
        healthy = shrunk(material.healthy, self.settings.size)
        self.learn_places(healthy)
        if run.progress is not None:
            run.progress("features", 0.1)
        self._take(handcrafted(healthy))
        if run.progress is not None:
            run.progress("fit", 1.0)

    def _take(self, features: Array) -> None:
        self._features, self._scale = features, healthy_scale(features)
        self.learn(self._scale.standard(features))

    def judge(self, planes: Planes) -> Judgement:
        own = shrunk(planes, self.settings.size)
        rows = known(self._scale).standard(handcrafted(own))
        return Judgement(self.distances(rows).astype("float32"), enlarged(self.place_maps(own), planes.size))

    def score(self, planes: Planes) -> Array:
        return self.judge(planes).scores

    def map(self, planes: Planes) -> Array:
        return self.judge(planes).maps

    def tensors(self) -> Tensors:
        return {"features": known(self._features), **self.place_tensors()}

    def restore(self, tensors: Tensors) -> None:
        features = tensors.get("features")
        if features is None or features.ndim != 2 or features.shape[1] != len(FEATURE_NAMES):
            raise ConfigError("the arrays do not fit the settings of the method: features")
        if len(features) < self.least:
            raise ConfigError("the arrays do not fit the settings of the method: too few features")
        self.restore_places(tensors)
        self._take(features.astype("float32"))

    def to(self, accelerator: str) -> None:
        """Nothing: these methods only know the CPU."""


K = TypeVar("K")


def known(learned: K | None) -> K:
    """What was learned. Raises ConfigError before ``fit`` or ``restore``."""
    if learned is None:
        raise ConfigError("the method is not fitted")
    return learned

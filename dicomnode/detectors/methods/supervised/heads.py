"""Classifiers on handcrafted features: SVM, k nearest neighbours, naive Bayes, forest, tree, perceptron, and a vote."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dicomnode.detectors.contract import Array
from dicomnode.detectors.methods.classical.features import FEATURE_NAMES, handcrafted
from dicomnode.detectors.methods.classical.windows import (
    WINDOW_CHANNELS,
    Places,
    enlarged,
    healthy_places,
    kept_places,
    shrunk,
    window_features,
)
from dicomnode.detectors.methods.contract import (
    Family,
    Judgement,
    Material,
    MethodEntry,
    Planes,
    Regime,
    Run,
    Settings,
    Tensors,
)
from dicomnode.detectors.methods.supervised.teaching import examples
from dicomnode.errors import ConfigError

Labels = npt.NDArray[np.int8]
SEED = 0
UNSCALED = frozenset({"decision-tree", "random-forest", "bagging"})
"""Heads that do not care for scales: the rules of a tree stay in the features' own units."""


class HeadSettings(Settings):
    """``neighbours``: k of kNN. ``trees``: of forest and bagging. ``depth``: greatest depth of a single tree."""

    neighbours: int = Field(default=15, ge=1)
    trees: int = Field(default=200, ge=1)
    depth: int = Field(default=4, ge=1)


def _svm(settings: HeadSettings) -> Any:  # noqa: ARG001 - one signature for all heads
    from sklearn.svm import SVC

    return SVC(kernel="rbf", C=1.0, gamma="scale")


def _knn(settings: HeadSettings) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(settings.neighbours, weights="distance")


def _naive_bayes(settings: HeadSettings) -> Any:  # noqa: ARG001 - one signature for all heads
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB()


def _forest(settings: HeadSettings) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(settings.trees, min_samples_leaf=3, random_state=SEED)


def _bagging(settings: HeadSettings) -> Any:
    from sklearn.ensemble import BaggingClassifier
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(max_depth=settings.depth, random_state=SEED)
    return BaggingClassifier(tree, n_estimators=max(10, settings.trees // 10), random_state=SEED)


def _tree(settings: HeadSettings) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=settings.depth, min_samples_leaf=5, random_state=SEED)


def _perceptron(settings: HeadSettings) -> Any:  # noqa: ARG001 - one signature for all heads
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((32,), alpha=0.01, solver="lbfgs", max_iter=2000, random_state=SEED)


def _sparse(settings: HeadSettings) -> Any:  # noqa: ARG001 - one signature for all heads
    from sklearn.decomposition import MiniBatchDictionaryLearning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = MiniBatchDictionaryLearning(24, alpha=0.5, transform_algorithm="lasso_lars", random_state=SEED)
    return make_pipeline(words, LogisticRegression(max_iter=2000))


def _vote(settings: HeadSettings) -> Any:
    from sklearn.ensemble import VotingClassifier

    members = [("svm", _probable(_svm(settings))), ("forest", _forest(settings)), ("perceptron", _perceptron(settings))]
    return VotingClassifier(members, voting="soft")


def _probable(classifier: Any) -> Any:
    from sklearn.calibration import CalibratedClassifierCV

    return CalibratedClassifierCV(classifier, cv=3, ensemble=False)


HEADS: Mapping[str, Callable[[HeadSettings], Any]] = MappingProxyType(
    {
        "svm": _svm,
        "knn": _knn,
        "naive-bayes": _naive_bayes,
        "random-forest": _forest,
        "bagging": _bagging,
        "decision-tree": _tree,
        "perceptron": _perceptron,
        "sparse-coding": _sparse,
        "voting": _vote,
    }
)


class Head:
    """A classifier on the handcrafted features of a plane; its training rows are kept and fitted again by ``restore``.

    Score: the signed distance from the border (SVM), else the log odds of abnormal. The map does not come from the
    classifier, which knows whole planes only: it is the deviation of local mean, standard deviation and gradient from
    the healthy ones at that place.
    """

    def __init__(self, kind: str, settings: HeadSettings) -> None:
        self.kind, self.settings = kind, settings
        self._rows: Array | None = None
        self._labels: Labels | None = None
        self._places: Places | None = None
        self._classifier: Any = None

    def fit(self, material: Material, run: Run) -> None:
        taught = examples(material, run.seed)
        if taught.labels is None or len(material.healthy) < 8:
            raise ConfigError("at least 8 healthy planes are needed")
        healthy = shrunk(material.healthy, self.settings.size)
        self._places = healthy_places(window_features(healthy), healthy)
        self._learn(handcrafted(shrunk(taught, self.settings.size)), taught.labels)

    def _learn(self, rows: Array, labels: Labels) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        self._rows, self._labels = rows.astype(np.float32), labels.astype(np.int8)
        scaler = "passthrough" if self.kind in UNSCALED else StandardScaler()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last state of a head that is still moving will do
            self._classifier = make_pipeline(scaler, HEADS[self.kind](self.settings)).fit(rows, labels)

    def judge(self, planes: Planes) -> Judgement:
        if self._places is None:
            raise ConfigError("the classifier was not fitted")
        own = shrunk(planes, self.settings.size)
        maps = self._places.maps(window_features(own), own)
        return Judgement(self._scores(own), enlarged(maps, planes.size))

    def score(self, planes: Planes) -> Array:
        return self._scores(shrunk(planes, self.settings.size))

    def map(self, planes: Planes) -> Array:
        return self.judge(planes).maps

    def _scores(self, planes: Planes) -> Array:
        if self._classifier is None:
            raise ConfigError("the classifier was not fitted")
        rows = handcrafted(planes)
        if self.kind == "svm":
            return np.asarray(self._classifier.decision_function(rows), np.float32)
        odds = np.clip(self._classifier.predict_proba(rows)[:, 1], 1e-6, 1 - 1e-6)
        return np.asarray(np.log(odds / (1 - odds)), np.float32)

    def rules(self) -> str:
        """The rules of the decision tree as text; empty for other heads."""
        from sklearn.tree import export_text

        if self.kind != "decision-tree" or self._classifier is None:
            return ""
        return str(export_text(self._classifier[-1], feature_names=list(FEATURE_NAMES)))

    def tensors(self) -> Tensors:
        if self._rows is None or self._labels is None or self._places is None:
            raise ConfigError("the classifier was not fitted")
        return {"features": self._rows, "labels": self._labels, **self._places.tensors()}

    def restore(self, tensors: Tensors) -> None:
        rows, labels = tensors.get("features"), tensors.get("labels")
        if rows is None or labels is None or rows.ndim != 2 or rows.shape != (len(labels), len(FEATURE_NAMES)):
            raise ConfigError("the arrays are not those of a classifier on handcrafted features")
        self._places = kept_places(tensors, WINDOW_CHANNELS, self.settings.size)
        self._learn(np.asarray(rows, np.float32), np.asarray(labels, np.int8))

    def to(self, accelerator: str) -> None:
        """Nothing: scikit-learn knows the CPU only."""


def _entry(kind: str, rows: tuple[str, ...], what: str) -> MethodEntry:
    return MethodEntry(
        kind,
        Family.SUPERVISED,
        Regime.SUPERVISED,
        rows,
        f"{what} (scikit-learn) on intensity, co-occurrence, wavelet and shape features",
        "signed distance from the border of the classes" if kind == "svm" else "log odds of abnormal, not calibrated",
        HeadSettings,
        partial(Head, kind),
        explains="deviation of local features (not the score)",
    )


METHODS = (
    _entry("svm", ("000-4", "004-3", "001-L2"), "support vector classifier, radial basis"),
    _entry("knn", ("004-2", "001-L2"), "k nearest neighbours, standardised"),
    _entry("naive-bayes", ("004-5",), "Gaussian naive Bayes"),
    _entry("random-forest", ("000-4", "004-4"), "random forest"),
    _entry("bagging", ("004-4",), "bagged trees"),
    _entry("decision-tree", ("004-4", "002-32"), "decision tree that prints its rules"),
    _entry("perceptron", ("000-4", "004-1"), "multi-layer perceptron"),
    _entry("sparse-coding", ("004-9",), "dictionary learning, sparse codes, logistic regression"),
    _entry("voting", ("004-11", "001-L1", "001-L5"), "soft vote of SVM, forest and perceptron"),
)

"""Model folders: which there are, which cannot be used and why, and their verified content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicomnode.errors import ConfigError
from dicomnode.models.card import CARD_FILE, ModelCard, read_card

WEIGHTS_FILE = "weights.safetensors"
CALIBRATION_FILE = "calibration.json"
SHIPPED = Path(__file__).with_name("weights")
EXECUTABLE_FORMATS = frozenset({".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy", ".npz", ".pt2"})
"""Suffixes of weight formats that can run code or need unpickling; a folder that holds one is refused."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder whose card is valid. ``folder``: where it lies."""

    folder: Path
    card: ModelCard

    @property
    def name(self) -> str:
        return self.card.name

    def read_weights(self) -> bytes:
        """The bytes of weights.safetensors. Raises ConfigError when they do not have the card's SHA-256."""
        return _verified(self.folder / WEIGHTS_FILE, self.card.sha256)

    def read_calibration(self) -> bytes:
        """The bytes of calibration.json. Raises ConfigError when they do not have the card's SHA-256."""
        return _verified(self.folder / CALIBRATION_FILE, self.card.calibration_sha256)

    def verify(self) -> None:
        """Raises ConfigError when a file is missing, has another hash, or is of a format that can run code."""
        _refuse_executable(self.folder)
        self.read_weights()
        self.read_calibration()


def open_model(folder: Path) -> Model:
    """The verified model in ``folder``. Raises ConfigError for everything that forbids its use."""
    if not folder.is_dir():
        raise ConfigError(f"model folder {folder.name} does not exist")
    _refuse_executable(folder)
    model = Model(folder, read_card(folder))
    model.verify()
    return model


class ModelRegistry:
    """The models of the shipped folder and of the operator's folders.

    ``folders``: each holds one folder per model. A name that appears twice belongs to the first; shipped models
    come first, so a user folder cannot replace one silently.
    """

    def __init__(self, folders: Iterable[Path] = (), *, shipped: bool = True) -> None:
        roots = [SHIPPED] if shipped else []
        self._roots = (*roots, *folders)

    def list(self) -> list[Model]:
        """All models that can be used, their hashes verified, by name."""
        return sorted(self._scan()[0].values(), key=lambda model: model.name)

    def broken(self) -> dict[str, str]:
        """Model folders that cannot be used: path → reason."""
        return self._scan()[1]

    def get(self, name: str) -> Model:
        """The model called ``name``, verified. Raises ConfigError with the reason, or with the names there are."""
        models, broken = self._scan()
        if name in models:
            return models[name]
        for place, reason in broken.items():
            if Path(place).name == name:
                raise ConfigError(f"model {name} cannot be used: {reason}")
        raise ConfigError(f"there is no model {name}; there are {', '.join(sorted(models)) or 'none'}")

    def _scan(self) -> tuple[dict[str, Model], dict[str, str]]:
        models: dict[str, Model] = {}
        broken: dict[str, str] = {}
        for folder in self._folders(broken):
            try:
                model = open_model(folder)
            except ConfigError as error:
                broken[str(folder)] = str(error)
                continue
            if model.name in models:
                broken[str(folder)] = f"another model folder is already called {model.name}"
            else:
                models[model.name] = model
        return models, broken

    def _folders(self, broken: dict[str, str]) -> Iterable[Path]:
        for root in self._roots:
            if not root.is_dir():
                broken[str(root)] = "this folder of models does not exist"
            elif (root / CARD_FILE).exists():
                yield root
            else:
                yield from sorted(path for path in root.iterdir() if path.is_dir() and path.name != "__pycache__")


def _refuse_executable(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in EXECUTABLE_FORMATS:
            raise ConfigError(f"{folder.name}: {path.name} is refused; only safetensors weights are loaded")


def _verified(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path.parent.name}: {path.name} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigError(f"{path.parent.name}: {path.name} has SHA-256 {found[:12]}…, its card says {sha256[:12]}…")
    return content

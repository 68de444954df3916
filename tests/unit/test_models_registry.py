"""Model folders: what is usable, what is refused, and why."""

from __future__ import annotations

import hashlib
import json

import pytest

from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry, open_model


@pytest.fixture
def make_model(tmp_path):
    """Write a model folder; answers its path."""

    def make(name="mine", root="models", **changes):
        folder = tmp_path / root / name
        folder.mkdir(parents=True)
        files = {"weights.safetensors": b"weights", "calibration.json": b"{}"}
        for file, content in files.items():
            (folder / file).write_bytes(content)
        card = {
            "name": name,
            "version": "1",
            "detector": "d",
            "sha256": hashlib.sha256(files["weights.safetensors"]).hexdigest(),
            "calibration_sha256": hashlib.sha256(files["calibration.json"]).hexdigest(),
            "licence": "CC0",
            "intended_use": "tests",
            "preprocessing": {},
            "architecture": {},
        }
        (folder / "card.json").write_text(json.dumps(card | changes), encoding="utf-8")
        return folder

    return make


def test_the_shipped_models_are_listed_small_and_none_is_broken():
    """Three detectors, three models, each below 10 MB, each marked as no medical device."""
    registry = ModelRegistry()
    models = registry.list()
    assert {model.card.detector for model in models} >= {"cxr", "ct-head", "mr-brain-flair"}
    assert registry.broken() == {}
    for model in models:
        assert len(model.read_weights()) < 10_000_000
        assert "Not a medical device" in model.card.notice
        assert model.card.metrics
        assert (model.folder / "MODEL_CARD.md").is_file()


def test_the_licence_of_the_mr_weights_is_non_commercial():
    """The data's licence travels with the weights."""
    by_detector = {model.card.detector: model.card for model in ModelRegistry().list()}
    assert by_detector["mr-brain-flair"].non_commercial
    assert "CC BY-NC-SA 4.0" in by_detector["mr-brain-flair"].licence


def test_a_user_folder_adds_models_and_cannot_replace_one(make_model, tmp_path):
    """The first model of a name stays; the second is listed as broken."""
    make_model("mine")
    make_model("mine", root="others")
    registry = ModelRegistry([tmp_path / "models", tmp_path / "others"], shipped=False)
    assert [model.name for model in registry.list()] == ["mine"]
    assert registry.get("mine").folder == tmp_path / "models" / "mine"
    assert "already called mine" in registry.broken()[str(tmp_path / "others" / "mine")]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: (f / "weights.safetensors").write_bytes(b"other"), "SHA-256"),
        (lambda f: (f / "calibration.json").write_bytes(b"[]"), "SHA-256"),
        (lambda f: (f / "weights.safetensors").unlink(), "cannot be read"),
        (lambda f: (f / "card.json").unlink(), "card.json is missing"),
        (lambda f: (f / "card.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "card.json").write_text('{"name": "x"}'), "not valid"),
        (lambda f: (f / "weights.pt").write_bytes(b""), "only safetensors"),
        (lambda f: (f / "old.pkl").write_bytes(b""), "only safetensors"),
    ],
)
def test_an_unusable_folder_is_listed_with_its_reason_and_refused(make_model, tmp_path, spoil, reason):
    """A wrong hash, a missing file or a pickle forbids the start with ConfigError."""
    folder = make_model()
    spoil(folder)
    registry = ModelRegistry([tmp_path / "models"], shipped=False)
    assert registry.list() == []
    assert reason in registry.broken()[str(folder)]
    with pytest.raises(ConfigError, match=reason):
        registry.get("mine")
    with pytest.raises(ConfigError, match=reason):
        open_model(folder)


def test_an_unknown_name_and_a_missing_folder_are_told(make_model, tmp_path):
    """The operator reads which models there are."""
    make_model("mine")
    registry = ModelRegistry([tmp_path / "models", tmp_path / "nowhere"], shipped=False)
    with pytest.raises(ConfigError, match="there are mine"):
        registry.get("yours")
    assert "does not exist" in registry.broken()[str(tmp_path / "nowhere")]

"""Copies of the shipped models with a threshold that nearly every Series reaches: there are findings to show."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from dicomnode.models.card import CARD_FILE
from dicomnode.models.registry import CALIBRATION_FILE, SHIPPED

ALPHA = 0.97
"""Share of healthy patients that would be called abnormal: a setting to test with, never to work with."""

EAGER = {"cxr": "cxr-lungs", "ct-head": "ct-head-healthy", "mr-brain-flair": "mr-brain-flair-healthy"}


def make_eager_models(folder: Path) -> Path:
    """Write the models into ``folder``, each called as the shipped one with "-eager" behind; returns ``folder``."""
    for name in EAGER.values():
        _make(SHIPPED / name, folder / f"{name}-eager")
    return folder


def eager_routes(peers: str = '["pacs"]') -> str:
    """Routes of a node's configuration to the eager models; ``peers``: a TOML list."""
    modalities = {"cxr": '["CR", "DX"]', "ct-head": '"CT"', "mr-brain-flair": '"MR"'}
    return "".join(
        f'[[route]]\nname = "{detector}"\nwhen = {{ Modality = {modalities[detector]} }}\n'
        f'detector = "{detector}"\nmodel = "{name}-eager"\nsend_to = {peers}\n'
        for detector, name in EAGER.items()
    )


def _make(shipped: Path, folder: Path) -> None:
    shutil.copytree(shipped, folder)
    calibration = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
    calibration["alpha"] = ALPHA
    changed = json.dumps(calibration).encode()
    (folder / CALIBRATION_FILE).write_bytes(changed)
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    card["name"], card["version"] = folder.name, f"{card['version']}-test"
    card["calibration_sha256"] = hashlib.sha256(changed).hexdigest()
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")

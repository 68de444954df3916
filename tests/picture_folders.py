"""Small folders of made-up chest pictures with labels.csv, laid out like the sets that models are trained on."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, *, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
    """A 64 x 64 picture, uint8, and where its lesion is."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    image = 150 + 50 * np.cos((columns - 32 + draw.normal(0, 1)) / 10) + draw.normal(0, 4, (64, 64))
    row, column = draw.integers(20, 44, 2)
    truth = (np.hypot(rows - row, columns - column) < 7) & lesion
    return np.clip(image + 90 * truth, 0, 255).astype(np.uint8), truth


def write_folder(root: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Pictures for ``rows`` (label 1: with a lesion; ``mask`` true: with its outline) and labels.csv."""
    root.mkdir(parents=True, exist_ok=True)
    written = []
    for i, row in enumerate(rows):
        image, truth = picture(i, lesion=row.get("label") == 1 or (row["split"] == "mixed_unlabelled" and i % 2 == 0))
        Image.fromarray(image).save(root / f"{i}.png")
        kept = {key: value for key, value in row.items() if key != "mask"} | {"file": f"{i}.png"}
        if "mask" in row:
            kept["mask_file"] = f"{i}_mask.png" if row["mask"] else ""
            if row["mask"]:
                Image.fromarray((truth * 255).astype(np.uint8)).save(root / f"{i}_mask.png")
        written.append(kept)
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in written for key in row)))
        writer.writeheader()
        writer.writerows(written)
    return root


def chest_folder(root: Path, *, healthy: int = 48) -> Path:
    """``healthy`` pictures of half as many patients, 16 mixed ones, and a labelled split of 24 with outlines."""
    rows: list[dict[str, object]] = [
        {"patient_id": f"h{i // 2}", "split": "train_normal", "label": 0, "mask": False} for i in range(healthy)
    ]
    rows += [{"patient_id": f"m{i}", "split": "mixed_unlabelled", "label": "", "mask": False} for i in range(16)]
    rows += [
        {"patient_id": f"SECRET{i}", "split": "val", "label": i % 2, "mask": i % 2 == 1, "sex": "FM"[i // 2 % 2],
         "age": 30 + 2 * i}
        for i in range(24)
    ]  # fmt: skip
    return write_folder(root, rows)

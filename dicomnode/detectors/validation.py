"""How well a model did in validation, in the words that every result carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHANCE = 0.5
WARNING = "In validation this model did not tell diseased from healthy images"


def validation_parameters(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of a result from the ``metrics`` of a model card; a card without an AUROC says "not measured".

    "validation": every set of pictures with its AUROC, 95 % interval and numbers of images. "validation AUROC": that
    of the set ``val``, short. "warning": only when the interval of ``val`` reaches down to 0.5, that of a coin.
    """
    sets = {name: content["auroc"] for name, content in metrics.items() if "auroc" in content}
    if not sets:
        return {"validation": "not measured"}
    said = {"validation": "; ".join(f"{name}: {_words(figure)}" for name, figure in sets.items())}
    if figure := sets.get("val"):
        said["validation AUROC"] = f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"
        if figure["low"] <= CHANCE:
            said["warning"] = WARNING
    return said


def _words(figure: Mapping[str, float]) -> str:
    return (
        f"AUROC per image {figure['value']:.3f}, 95 % interval {figure['low']:.3f} to {figure['high']:.3f} "
        f"({figure['abnormal']} abnormal, {figure['normal']} normal images)"
    )

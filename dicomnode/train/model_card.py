"""``MODEL_CARD.md``: the card for people, written from ``card.json`` so that the two never differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dicomnode.models.card import ModelCard, read_card

MODEL_CARD_FILE = "MODEL_CARD.md"


def write_model_card(folder: Path) -> Path:
    """Write MODEL_CARD.md of a model folder; answers its path. Raises ConfigError without a valid card.json."""
    path = folder / MODEL_CARD_FILE
    path.write_text(_text(read_card(folder)), encoding="utf-8")
    return path


def _text(card: ModelCard) -> str:
    blocks = [
        f"# {card.name} {card.version}",
        f"**{card.notice}**",
        card.description,
        f"Detector: `{card.detector}`. Weights SHA-256: `{card.sha256}`.",
        f"## Intended use\n{card.intended_use}",
        "## Limits\n" + _list(card.limits),
        f"## Licence\n{card.licence}{'. Non-commercial use only.' if card.non_commercial else ''}",
        "## Attribution\n" + _list(card.attribution),
        "## Data\n" + _list([f"{key}: {value}" for key, value in card.data.items()]),
        "## Method\n" + _list(_method(card)),
        "## Figures\nOn labelled pictures of patients that were not trained on; 95 % intervals, patients drawn with "
        "replacement. The model's score rule was chosen on the same pictures, so the figures are optimistic.\n\n"
        + "\n\n".join(_split(name, figures) for name, figures in card.metrics.items()),
    ]
    return "\n\n".join(blocks) + "\n"


def _method(card: ModelCard) -> list[str]:
    networks = ", ".join(json.dumps(entry) for entry in card.architecture.get("networks", []))
    return [
        f"input: {json.dumps(card.preprocessing)}",
        f"{card.architecture.get('folds')} folds of: {networks}",
        f"training: {json.dumps(card.training)}",
    ]


def _split(name: str, figures: dict[str, Any]) -> str:
    return f"### {name}\n" + _list([f"{key.replace('_', ' ')}: {_value(value)}" for key, value in figures.items()])


def _value(value: Any) -> str:
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        others = ", ".join(f"{key} {item}" for key, item in value.items() if key not in {"value", "low", "high"})
        return f"{value['value']} ({value['low']} to {value['high']})" + (f"; {others}" if others else "")
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)

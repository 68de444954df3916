"""The rows of a comparison as a Markdown table, by family and AUROC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dicomnode.models.card import NOTICE
from dicomnode.train.compare import DONE, Row

HEAD = (
    *("method", "AUROC (95 %)", "minus best trivial (95 %)", "AUPRC", "pixel AP", "AUPRO", "Dice, oracle"),
    *("AUROC of top 2 %", "steps", "fit s", "ms/plane"),
)


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows by family, the greatest AUROC first, those without figures last."""
    return sorted(rows, key=lambda row: (row["family"], row["status"] != DONE, -(row.get("auroc") or 0), row["method"]))


def markdown(title: str, about: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The whole page: what was done, the rival, one table per family, what did not run."""
    done = [row for row in ordered(rows) if row["status"] == DONE]
    rest = [row for row in ordered(rows) if row["status"] != DONE]
    parts = [f"# {title}", f"**{NOTICE}**", _settings(about, done)]
    families = dict.fromkeys(row["family"] for row in done)
    parts += [f"## {family}\n\n" + _table([row for row in done if row["family"] == family]) for family in families]
    if rest:
        lines = [f"| {row['method']} | {row['family']} | {row['status']} | {row['reason']} |" for row in rest]
        parts.append(
            "## Not measured\n\n| method | family | | reason |\n| --- | --- | --- | --- |\n" + "\n".join(lines)
        )
    return "\n\n".join(parts) + "\n"


def _settings(about: Mapping[str, Any], done: Sequence[Row]) -> str:
    lines = [f"- {key.replace('_', ' ')}: {value}" for key, value in about.items() if value not in (None, "", {})]
    if done:
        lines.append(
            f"- date, commit: {done[-1]['date']}, {done[-1]['commit'] or 'not known'}; torch {done[-1]['torch']}"
        )
        lines.append(f"- protocol: {done[0]['protocol']}; {done[0]['n']} pictures of {done[0]['patients']} patients")
        rival = done[0].get("best_trivial")
        if rival:
            lines.append(f"- best trivial feature: {rival['name']}, AUROC {_between(rival['auroc'], rival['ci'])}")
    lines.append("- Dice, oracle: the best threshold by the outlines themselves, an upper bound; pixel figures on the "
                 "network grid, left-out pictures not counted")  # fmt: skip
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    return "\n".join([*lines, *("| " + " | ".join(cells(row)) + " |" for row in rows)])


def cells(row: Row) -> list[str]:
    """One row as text; a dash where there is no figure."""
    difference = row.get("difference_to_trivial") or {}
    figures = [row.get(key) for key in ("auprc", "pixel_ap", "aupro", "dice_oracle", "auroc_top2")]
    return [
        row["method"],
        _between(row.get("auroc"), row.get("auroc_ci")),
        _between(difference.get("value"), difference.get("ci")),
        *(_number(value) for value in figures),
        *(str(row.get(key, "–")) for key in ("steps", "fit_s", "ms_per_plane")),
    ]


def _between(value: float | None, interval: Sequence[float] | None) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if value is not None and interval else _number(value)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"

"""The report of an evaluation: one HTML page with its plots inside, and the plots as PNG files. No patient is named."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dicomnode.train.evaluate import Evaluation
from dicomnode.train.plots import plots_of

PAGE_FILE = "report.html"
_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:.6em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}"
    "th{background:#f2f2f2}.notice{background:#fff3cd;border:1px solid #d9b84a;padding:.6em;font-weight:600}"
    "img{max-width:49%}"
)
_COIN = "0.500 (coin)"


def write_page(found: Evaluation, folder: Path) -> Path:
    """Write report.html and its PNGs into ``folder``; answers the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = plots_of(found)
    for title, png in plots.items():
        (folder / f"{_slug(title)}.png").write_bytes(png)
    path = folder / PAGE_FILE
    path.write_text(_page(found.figures, plots), encoding="utf-8")
    return path


def _page(figures: Mapping[str, Any], plots: Mapping[str, bytes]) -> str:
    model = figures["model"]
    title = f"{model['name']} {model['version']} on split {figures['split']}"
    pictures = "".join(
        f'<img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in plots.items()
    )
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="notice">{escape(figures["notice"])}</p>',
        f"<p>{escape(_who(figures))} Weights SHA-256 <code>{escape(model['sha256'])}</code></p>",
        f"<p>{escape(figures['protocol'])}.</p>",
        "<h2>Figures</h2>",
        _table(("figure", "value", "95 % interval", "to beat"), figure_rows(figures)),
        _list(f"no {key}: {why}" for key, why in figures["reasons"].items()),
        f"<h2>Plots</h2><p>{pictures or 'No picture to draw.'}</p>",
        "<h2>Trivial features</h2><p>AUROC of single features without a model, in their better direction.</p>",
        _table(("feature", "AUROC"), [(name, _text(value)) for name, value in (figures["trivial"] or {}).items()]),
        "<h2>Subgroups</h2>",
        _table(("group", "n", "abnormal", "AUROC (95 %)", "false positives", "sensitivity"), group_rows(figures)),
        "<h2>Realised rates</h2><p>Share of normal pictures with p at most alpha; near alpha is as promised.</p>",
        _table(("alpha", "normal pictures"), _rates(figures)),
        "<h2>Left out</h2>",
        _table(("why", "pictures"), [(why, str(count)) for why, count in figures["left_out_reasons"].items()]),
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _who(figures: Mapping[str, Any]) -> str:
    numbers = f"{figures['n_abnormal']} abnormal and {figures['n_normal']} normal pictures"
    return f"{numbers} of {figures['n_patients']} patients; {figures['left_out']} left out by the model."


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, value, interval and the value that says nothing (a coin, prevalence, the best trivial feature)."""
    best, difference = figures["best_trivial"], figures["difference_to_trivial"]
    rival = f"{_text(best['auroc'])} ({best['name']})" if best else _COIN
    prevalence = f"{_text(figures['prevalence'])} (prevalence)"
    rows = [
        ("AUROC", _text(figures["auroc"]), _text(figures["auroc_ci"]), rival),
        ("AUROC, DeLong interval", _text(figures["auroc"]), _text(figures["auroc_delong_ci"]), rival),
        ("AUPRC", _text(figures["auprc"]), _text(figures["auprc_ci"]), prevalence),
        ("sensitivity at 90 % specificity", _text(figures["sensitivity_at_90_specificity"]), "", "0.100 (coin)"),
        ("sensitivity at 95 % specificity", _text(figures["sensitivity_at_95_specificity"]), "", "0.050 (coin)"),
        ("patient AUROC", _text(figures["patient_auroc"]), _text(figures["patient_auroc_ci"]), _COIN),
    ]
    if difference:
        rows.insert(1, ("AUROC minus best trivial", _text(difference["value"]), _text(difference["ci"]), "0"))
    if figures["localisation"]:
        rows += [
            ("pixel AP", _text(figures["pixel_ap"]), "", "share of abnormal pixels"),
            ("AUPRO to 0.3", _text(figures["aupro"]), "", "0.150 (coin)"),
            ("Dice at the fixed threshold", _text(figures["dice"]), "", ""),
            ("Dice, ORACLE (upper bound)", _text(figures["dice_oracle"]), "", ""),
        ]
    if figures["calibration"] and figures["calibration"]["brier"] is not None:
        own = figures["calibration"]
        rows.append(
            ("Brier of the score", _text(own["brier"]), "", f"{_text(own['brier_of_prevalence'])} (prevalence)")
        )
        rows.append(("ECE of the score", _text(own["ece"]), "", "0"))
    return rows


def group_rows(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """One row per subgroup."""
    rows: list[tuple[str, ...]] = []
    for grouping, groups in (figures["subgroups"] or {}).items():
        for name, own in (groups or {}).items():
            between = f"{_text(own['auroc'])} ({_text(own['auroc_ci'])})"
            rates = _text(own["false_positive_rate"]), _text(own["sensitivity"])
            rows.append((f"{grouping}: {name}", str(own["n"]), str(own["abnormal"]), between, *rates))
    return rows


def _rates(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    conformal = (figures["calibration"] or {}).get("conformal") or {"normal_pictures": []}
    return [(f"{row['alpha']:g}", _text(row["rate"])) for row in conformal["normal_pictures"]]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not cells:
        return "<p>None.</p>"
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return " to ".join(f"{item:.3f}" for item in value) if isinstance(value, list) else f"{value:.3f}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")

"""``dicomnode stress``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dicomnode.cli.learning import bars, data_argument, machine, machine_options
from dicomnode.cli.options import blueprint, config_option, json_option, print_json, print_table

_NONE = "–"


@click.command()
@click.argument("model")
@data_argument
@click.option("--split", default="val", show_default=True, help="The labelled split of DATA.")
@click.option("--limit", default=32, show_default=True, type=click.IntRange(4), help="So many planes at most.")
@machine_options
@config_option
@json_option
def stress(
    model: str,
    data: Path,
    split: str,
    limit: int,
    accelerator: str,
    threads: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Attack MODEL (a model folder or a name of the registry), check its maps, and simulate other scanners.

    DATA holds labels.csv and the pictures. Nothing that names a picture or a patient is printed.
    """
    from dicomnode.train.stress import stress_model

    folder = Path(model) if Path(model).is_dir() else blueprint(config_path).registry().get(model).folder
    with machine(accelerator, threads) as chosen, bars(shown=not as_json) as show:
        found = stress_model(folder, data, split=split, limit=limit, accelerator=chosen, show=show)
    if as_json:
        print_json(found)
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    model = found["model"]
    click.echo(f"{model['name']} {model['version']}, split {found['split']}")
    _print_attack(found["attack"])
    _print_saliency(found["saliency"])
    _print_shifts(found["shifts"])
    click.echo(found["notice"])


def _print_attack(attack: Mapping[str, Any]) -> None:
    click.echo(attack["text"])
    rows = [("clean", "", _text(attack["clean"]["auroc"]), "", "", "")]
    for row in attack["epsilons"]:
        for kind in ("pgd", "noise"):
            one = row[kind]
            if one is not None:
                changes = (_text(one["score_change_normal_sd"]), _text(one["score_change_abnormal_sd"]))
                rows.append((kind, f"{row['epsilon']:g}", _text(one["auroc"]), *changes, _text(one["flipped"])))
    print_table(("attack", "ε", "AUROC", "change of normal, sd", "change of abnormal, sd", "flipped"), rows)


def _print_saliency(saliency: Mapping[str, Any]) -> None:
    rows = []
    for name in ("randomised_weights", "deletion", "pointing_game"):
        check = saliency[name]
        verdict = {True: "passed", False: "FAILED", None: "not made"}[check["passed"]]
        figures = ", ".join(
            f"{key.replace('_', ' ')} {_listed(value)}" for key, value in check.items() if key != "passed"
        )
        rows.append((name.replace("_", " "), verdict, figures))
    print_table(("check of the maps", "result", "figures"), rows)


def _print_shifts(shifts: Mapping[str, Any]) -> None:
    if "not_done" in shifts:
        click.echo(f"no simulated scanners: {shifts['not_done']}")
        return
    rows = [
        (name, _text(one["lesion_auroc"]), _text(one["acquisition_auroc"]), *_called(one["table"]))
        for name, one in shifts["shifts"].items()
    ]
    click.echo(f"simulated scanners, {shifts['series']} series, lesions {shifts['lesions']}")
    print_table(("shift", "AUROC of lesions", "AUROC of the gate", "found with lesion", "found without"), rows)


def _called(table: Mapping[str, Mapping[str, int]]) -> tuple[str, ...]:
    """Series above the threshold of all, with and without lesion."""
    parts = (table["with lesion"], table["without lesion"])
    return tuple(f"{part['findings'] + part['review']} of {sum(part.values())}" for part in parts)


def _listed(value: Any) -> str:
    return " / ".join(_text(item) for item in value) if isinstance(value, list) else _text(value)


def _text(value: Any) -> str:
    if value is None:
        return _NONE
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""``dicomnode evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicomnode.cli.learning import bars, data_argument, machine, machine_options
from dicomnode.cli.options import blueprint, config_option, json_option, print_json, print_table

_SHOWN = (
    *("auroc", "auroc_delong_ci", "auprc", "prevalence", "sensitivity_at_90_specificity"),
    *("sensitivity_at_95_specificity", "patient_auroc", "pixel_ap", "aupro", "dice", "dice_oracle"),
)


@click.command()
@click.argument("model")
@data_argument
@click.option("--split", default="val", show_default=True, help="The labelled split of DATA.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write an HTML page and PNGs here.")
@click.option("--record", is_flag=True, help="Put the figures into the card of the model folder.")
@machine_options
@config_option
@json_option
def evaluate(
    model: str,
    data: Path,
    split: str,
    report: Path | None,
    record: bool,
    accelerator: str,
    threads: int,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Measure MODEL (a model folder or a name of the registry) on the labelled pictures of DATA.

    DATA holds labels.csv and the pictures. Every figure comes with its interval and the best trivial feature.
    """
    from dicomnode.train.evaluate import card_figures, evaluate_folder, record_metrics
    from dicomnode.train.model_card import write_model_card

    folder = Path(model) if Path(model).is_dir() else blueprint(config_path).registry().get(model).folder
    with machine(accelerator, threads) as chosen, bars(shown=not as_json) as show:
        found = evaluate_folder(folder, data, split, accelerator=chosen, watch=lambda share: show("evaluate", share))
    if record:
        record_metrics(folder, {split: card_figures(found.figures)})
        write_model_card(folder)
    if report is not None:
        from dicomnode.train.page import write_page

        path = write_page(found, report)
        click.echo(f"report: {path}", err=True)
    if as_json:
        print_json(found.figures)
    else:
        _print(found.figures)


def _print(figures: dict[str, Any]) -> None:
    click.echo(f"{figures['model']['name']} {figures['model']['version']}, split {figures['split']}: "
               f"{figures['n_abnormal']} abnormal and {figures['n_normal']} normal pictures of {figures['n_patients']} "
               f"patients, {figures['left_out']} left out")  # fmt: skip
    click.echo(figures["protocol"])
    print_table(
        ("figure", "value", "95 % interval"), [(key, _text(figures[key]), _interval(figures, key)) for key in _SHOWN]
    )
    for key, name in (("best_trivial", "auroc"), ("difference_to_trivial", "value")):
        if figures[key] is not None:
            what = f" ({figures[key]['name']})" if "name" in figures[key] else ""
            click.echo(f"{key.replace('_', ' ')}{what}: {_text(figures[key][name])}, 95 % {_text(figures[key]['ci'])}")
    for key, why in figures["reasons"].items():
        click.echo(f"no {key}: {why}")
    click.echo(figures["notice"])


def _interval(figures: dict[str, Any], key: str) -> str:
    return _text(figures[f"{key}_ci"]) if f"{key}_ci" in figures else ""


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return " to ".join(f"{item:.3f}" for item in value) if isinstance(value, list) else f"{value:.3f}"

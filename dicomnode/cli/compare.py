"""``dicomnode compare``."""

from __future__ import annotations

from pathlib import Path

import click

from dicomnode.cli.learning import data_argument, machine, machine_options
from dicomnode.cli.options import json_option, print_json, print_table


@click.command()
@data_argument
@click.option("--detector", required=True, help="Whose preparation is used: cxr, ct-head or mr-brain-flair.")
@click.option("--methods", default="all", show_default=True, metavar="all|a,b,c", help="Which methods.")
@click.option("--size", default=64, show_default=True, type=click.IntRange(16, 512), help="Side of the planes.")
@click.option("--steps", default=500, show_default=True, type=click.IntRange(1), help="Optimiser steps of each method.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--split", default="val", show_default=True, help="The labelled split.")
@click.option("--mixed", default="mixed_unlabelled", show_default=True, help="The unlabelled split of methods for it.")
@click.option("--limit-s", type=click.FloatRange(1), help="Seconds for one fit; slower methods get fewer steps.")
@click.option("--opt-in", is_flag=True, help="Also methods that are too slow to be run unasked.")
@click.option("--full", is_flag=True, help="The methods' own settings, also where they are a recipe for a GPU.")
@click.option("--backbone", metavar="NAME=FILE", help="Weights of frozen features, such as mobilenet-v2=weights.npz.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder of the table.")
@machine_options
@json_option
def compare(
    data: Path,
    detector: str,
    methods: str,
    size: int,
    steps: int,
    seed: int,
    split: str,
    mixed: str,
    limit_s: float | None,
    opt_in: bool,
    full: bool,
    backbone: str | None,
    out: Path,
    accelerator: str,
    threads: int,
    as_json: bool,
) -> int:
    """Fit many methods on the healthy pictures of DATA and measure all on its labelled split.

    A method that fails is a row with its reason. Interrupted, the command goes on where it stopped.
    """
    from dicomnode.train.compare import DONE, Plan
    from dicomnode.train.compare import compare as run
    from dicomnode.train.compare_table import HEAD, cells, ordered
    from dicomnode.train.recipes import recipe_for
    from dicomnode.train.table_file import commit, write_table

    names = () if methods == "all" else tuple(name.strip() for name in methods.split(",") if name.strip())
    with machine(accelerator, threads) as chosen:
        plan = Plan(
            recipe_for(detector), data, out, names, size, steps, seed, limit_s, opt_in, chosen, "train_normal", split,
            mixed, commit(), small=not full, backbone=_named_file(backbone),
        )  # fmt: skip
        rows = ordered(run(plan, _tell))
    write_table(plan, rows)
    if as_json:
        print_json({"rows": rows})
    else:
        print_table(HEAD, (cells(row) for row in rows if row["status"] == DONE))
    return 0 if any(row["status"] == DONE for row in rows) else 1


def _named_file(text: str | None) -> tuple[str, Path] | None:
    if text is None:
        return None
    name, sign, path = text.partition("=")
    if not sign:
        raise click.BadParameter("wants NAME=FILE", param_hint="--backbone")
    return name, Path(path)


def _tell(row: dict[str, object]) -> None:
    figure = row.get("auroc")
    said = f"AUROC {figure:.3f}, fit {row['fit_s']} s" if isinstance(figure, float) else row["reason"]
    click.echo(f"{row['method']}: {row['status']}; {said}", err=True)

"""``dicomnode train``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dicomnode.cli.learning import bars, data_argument, machine, machine_options, parsed_settings
from dicomnode.cli.options import json_option, print_json
from dicomnode.errors import ConfigError

if TYPE_CHECKING:
    from dicomnode.node.training import Trained
    from dicomnode.train.recipes import Recipe

DETECTORS = ("cxr", "ct-head", "mr-brain-flair")
REGISTRATIONS = ("rigid", "similarity", "affine")


@click.command()
@data_argument
@click.option("--method", help="Method of the catalogue; an unknown name is answered with the list.")
@click.option("--recipe", "shipped", type=click.Choice(DETECTORS), help="Instead of --method: a shipped recipe.")
@click.option("--detector", type=click.Choice(DETECTORS), help="Which detector the model is for.")
@click.option("--out", default="models", show_default=True, type=click.Path(file_okay=False, path_type=Path),
              help="Folder that receives the model folder.")  # fmt: skip
@click.option("--name", help="Name of the model; default: <detector>-<method>.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the method; may be repeated.")
@click.option("--seed", default=0, show_default=True, type=int)
@click.option("--folds", type=click.IntRange(1, 16), help="Folds of patients; default: that of the recipe.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps of each fit.")
@click.option("--patience", type=click.IntRange(1), help="Looks without improvement after which a fit stops.")
@click.option("--split", default="train_normal", show_default=True, help="The healthy split of labels.csv.")
@click.option("--mixed", metavar="SPLIT", help="Unlabelled split, for methods that learn from one.")
@click.option("--register", "registration", type=click.Choice(REGISTRATIONS),
              help="Align every plane to the mean healthy one, in training and on the node.")  # fmt: skip
@click.option("--clahe", is_flag=True, help="Equalise the local contrast of radiographs, in training and on the node.")
@click.option("--alpha", type=click.FloatRange(0.001, 0.5), help="Wanted share of false alarms; default 0.05.")
@click.option("--licence", help="Licence of the training data, for the card.")
@click.option("--checkpoints", type=click.Path(file_okay=False, path_type=Path),
              help="Folder of fitted networks: an interrupted training goes on.")  # fmt: skip
@click.option("--thresholds-on", metavar="SPLIT", help="Choose the region threshold by the outlines of this split.")
@click.option("--previews/--no-previews", default=None, help="PNGs of held-back planes; default: not for --recipe.")
@machine_options
@json_option
def train(
    data: Path,
    method: str | None,
    shipped: str | None,
    detector: str | None,
    out: Path,
    name: str | None,
    pairs: tuple[str, ...],
    seed: int,
    folds: int | None,
    steps: int | None,
    patience: int | None,
    split: str,
    mixed: str | None,
    registration: str | None,
    clahe: bool,
    alpha: float | None,
    licence: str | None,
    checkpoints: Path | None,
    thresholds_on: str | None,
    previews: bool | None,
    accelerator: str,
    threads: int,
    as_json: bool,
) -> None:
    """Train a model on the healthy images of DATA and write a model folder that the node can run.

    DATA holds labels.csv and pictures, or DICOM files (every Series that the detector accepts, all taken as healthy).
    """
    from dicomnode.node.training import train_folder
    from dicomnode.train.build import Options

    if (method is None) == (shipped is None):
        raise ConfigError("say either --method NAME or --recipe DETECTOR")
    if method is not None:
        recipe = _own(method, detector, parsed_settings(pairs), steps, folds, mixed, name, licence)
    else:
        recipe = _shipped(str(shipped), steps, folds, name, pairs, mixed)
    rule = recipe.rule if alpha is None else replace(recipe.rule, alpha=alpha)
    rule = rule if thresholds_on is None else replace(rule, thresholds_on=thresholds_on)
    kept = method is not None if previews is None else previews
    with machine(accelerator, threads) as chosen, bars(shown=not as_json) as show:
        options = Options(chosen, seed, patience, checkpoints, show, kept)
        chosen_recipe = replace(recipe, rule=rule, registration=registration, clahe=clahe)
        trained = train_folder(chosen_recipe, data, split, out, options)
    _tell(trained, as_json=as_json)


def _own(
    method: str,
    detector: str | None,
    settings: dict[str, object],
    steps: int | None,
    folds: int | None,
    mixed: str | None,
    name: str | None,
    licence: str | None,
) -> Recipe:
    from dicomnode.train.recipes import Wish, recipe_of

    if detector is None:
        raise ConfigError("--method needs --detector: whose preparation the images get")
    wish = Wish(method, settings, steps, folds or 3, mixed, name)
    return recipe_of(detector, wish if licence is None else replace(wish, licence=licence))


def _shipped(
    detector: str, steps: int | None, folds: int | None, name: str | None, pairs: tuple[str, ...], mixed: str | None
) -> Recipe:
    from dicomnode.train.recipes import recipe_for

    if pairs:
        raise ConfigError("--set goes with --method; a shipped recipe has its settings")
    recipe = recipe_for(detector)
    networks = recipe.networks if steps is None else tuple(replace(own, steps=steps) for own in recipe.networks)
    return replace(
        recipe,
        networks=networks,
        folds=folds or recipe.folds,
        model=name or recipe.model,
        mixed=mixed or recipe.mixed,
    )


def _tell(trained: Trained, *, as_json: bool) -> None:
    from dicomnode.models.card import read_card

    card = read_card(trained.folder)
    if as_json:
        print_json({"folder": str(trained.folder), "name": card.name, "version": card.version, "sha256": card.sha256,
                    "planes": trained.planes, "patients": trained.patients, "left_out": trained.left_out})  # fmt: skip
        return
    click.echo(f"{card.name} {card.version}: {trained.planes} healthy planes of {trained.patients} patients")
    for reason, count in trained.left_out.items():
        click.echo(f"left out: {count} x {reason}")
    click.echo(f"model folder: {trained.folder}")
    click.echo(card.notice)

"""``python -m dicomnode.train``: the recipe of the shipped models, from pictures to model folders."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dicomnode.errors import DicomNodeError
from dicomnode.train.build import train_model
from dicomnode.train.evaluate import evaluate_model, record_metrics
from dicomnode.train.model_card import write_model_card
from dicomnode.train.recipes import RECIPES, recipe_for


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and evaluate one model; exit status 2 for unusable input."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = recipe_for(options.detector)
    try:
        folder = options.out / recipe.model
        if not options.evaluate_only:
            folder = train_model(
                recipe,
                options.data,
                options.out,
                accelerator=options.accelerator,
                checkpoints=options.checkpoints,
                progress=_show,
            )
        metrics = evaluate_model(folder, recipe, options.data, splits=options.evaluate, accelerator=options.accelerator)
        record_metrics(folder, metrics)
        write_model_card(folder)
    except DicomNodeError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(json.dumps(metrics, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dicomnode.train", description=__doc__)
    parser.add_argument("detector", choices=sorted(RECIPES))
    parser.add_argument("--data", type=Path, required=True, help="folder with labels.csv and the pictures")
    parser.add_argument("--out", type=Path, required=True, help="where the model folder is written")
    parser.add_argument("--evaluate", nargs="+", default=["val"], metavar="SPLIT", help="labelled splits")
    parser.add_argument("--evaluate-only", action="store_true", help="do not train, use the model folder in --out")
    parser.add_argument("--accelerator", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, help="folder of fitted networks, to go on after an interruption")
    return parser


def _show(step: str, share: float) -> None:
    sys.stderr.write(f"\r{step} {share:5.0%}")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())

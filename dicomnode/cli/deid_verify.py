"""``dicomnode deid verify``."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from dicomnode.cli.options import json_option, print_json, print_table

_MOST_SHOWN = 50


@click.command()
@click.argument("results", metavar="OUT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--against", "sources", metavar="IN", required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path), help="The files that were de-identified.",
)  # fmt: skip
@click.option(
    "--key", "key_file", envvar="DICOMNODE_DEID_KEY_FILE", type=click.Path(path_type=Path),
    help="Key of the project: pairs each result with its source, for --scorecard and shifted dates.",
)  # fmt: skip
@click.option("--prefix", default="ANON-", show_default=True, help="Beginning of the pseudonyms of patients.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes. Default: one for each core.")
@click.option("--scorecard", is_flag=True, help="Count right and wrong by the ten actions of MIDI-B.")
@json_option
def verify(
    results: Path,
    sources: Path,
    key_file: Path | None,
    prefix: str,
    jobs: int | None,
    *,
    scorecard: bool,
    as_json: bool,
) -> int:
    """Look for every identifying value of IN in every byte of OUT. Exit status 1 when one is found.

    Tells file, attribute and place of a leak, never the value.
    """
    from dicomnode.deid.keys import ProjectKey
    from dicomnode.deid.pseudonyms import Pseudonyms
    from dicomnode.deid.verify import Verifier

    pseudonyms = Pseudonyms(ProjectKey.load(key_file), prefix) if key_file is not None else None
    begun = time.monotonic()
    found = Verifier(sources, results, pseudonyms, jobs or os.cpu_count() or 1).run(scorecard=scorecard)
    answer = {
        "sources": found.sources, "results": found.results, "unread_sources": found.unread, "paired": found.paired,
        "values": found.values, "too_short": found.short, "leaks": len(found.leaks),
        "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    card = [_row(action, *score) for action, score in found.scores.items()]
    wrong = [
        {"action": action, "attribute": name, "files": count} for (action, name), count in found.wrong.most_common()
    ]
    if as_json:
        print_json({**answer, "found": [asdict(leak) for leak in found.leaks], "scorecard": card, "wrong": wrong})
    else:
        print_table(("", ""), [(key.replace("_", " "), value) for key, value in answer.items()])
        _print(found.leaks, card, wrong)
    return 1 if found.leaks else 0


def _row(action: str, right: int, every: int) -> dict[str, Any]:
    return {"action": action, "right": right, "of": every, "percent": round(100 * right / every, 2) if every else None}


def _print(leaks: list[Any], card: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> None:
    if leaks:
        kinds = Counter((leak.source, leak.kind, leak.place) for leak in leaks)
        print_table(("leaks: from", "kind", "place", "times"), [(*key, count) for key, count in kinds.most_common()])
        shown = [(leak.file, leak.source, leak.place, leak.offset, leak.digest) for leak in leaks[:_MOST_SHOWN]]
        print_table(("file", "from", "place", "byte", "value"), shown)
    if card:
        rows = [(row["action"], row["right"], row["of"], row["percent"]) for row in card]
        print_table(("action", "right", "of", "percent"), rows)
    if wrong:
        print_table(
            ("not as the profile says", "attribute", "files"), [tuple(row.values()) for row in wrong[:_MOST_SHOWN]]
        )

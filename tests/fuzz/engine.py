"""Runs targets for a time, keeps what failed so that it can be repeated, judges what was left behind."""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dicomnode.errors import place
from tests.fuzz.images import Images
from tests.fuzz.leaving import Leaving
from tests.fuzz.network import NETWORK
from tests.fuzz.pure import PURE
from tests.fuzz.target import Finding, Target, bounded

TARGETS: dict[str, type[Target]] = {target.name: target for target in (*PURE, Leaving, Images, *NETWORK)}
TRAIL = 40
MOST_FINDINGS = 20


@dataclass
class Failure:
    """One broken promise. ``file``: its inputs, for ``--repeat``."""

    target: str
    seed: int
    number: int
    error: str
    at: str
    file: str


@dataclass
class Outcome:
    """What became of one target."""

    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)


def run(
    target: Target,
    seed: int,
    seconds: float,
    failures: Path,
    told: Callable[[int], None] = lambda _: None,
    *,
    least: int = 1,
) -> Outcome:
    """Feed ``target`` until ``seconds`` are over and ``least`` inputs are done; failures of one place are kept once.

    ``told``: after each input, how many there were.
    """
    outcome = Outcome(target.name, seed)
    trail: deque[bytes] = deque(maxlen=TRAIL)
    seen: set[tuple[str, str]] = set()

    def keep(error: BaseException) -> None:
        key = (type(error).__name__, place(error)) if not isinstance(error, Finding) else (str(error)[:20], "")
        if key not in seen and len(seen) < MOST_FINDINGS:
            seen.add(key)
            outcome.failures.append(_kept(outcome, error, list(trail), failures))

    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as folder:
        warnings.simplefilter("ignore")
        try:
            with target.running(Path(folder)):
                started = time.monotonic()
                while len(seen) < MOST_FINDINGS and (time.monotonic() - started < seconds or outcome.inputs < least):
                    data = target.input_number(seed, outcome.inputs)
                    trail.append(data)
                    try:
                        _check(target, data)
                    except Exception as error:  # noqa: BLE001 - whatever comes out of the code under test is a finding
                        keep(error)
                    outcome.inputs += 1
                    told(outcome.inputs)
                outcome.seconds = time.monotonic() - started
        except Finding as error:
            keep(error)
        outcome.notes = dict(getattr(target, "notes", {}))
    return outcome


def repeat(file: Path) -> str:
    """Feed the inputs of a failure again; what went wrong, empty when nothing did."""
    kept = json.loads(file.read_text(encoding="utf-8"))
    target = TARGETS[kept["target"]]()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as folder:
        warnings.simplefilter("ignore")
        try:
            with target.running(Path(folder)):
                for text in kept["inputs"]:
                    _check(target, base64.b64decode(text))
        except Exception as error:  # noqa: BLE001 - as in run
            return f"{type(error).__name__}: {error} ({place(error)})"
    return ""


def _check(target: Target, data: bytes) -> None:
    if target.pure:
        with bounded():
            target.check(data)
    else:
        target.check(data)


def _kept(outcome: Outcome, error: BaseException, trail: list[bytes], folder: Path) -> Failure:
    """Of a function the last input is the culprit; of a node it may be any of the last ones."""
    inputs = trail[-1:] if TARGETS[outcome.target].pure else trail
    return keep_inputs(outcome, f"{type(error).__name__}: {error}"[:500], place(error), inputs, folder)


def keep_inputs(outcome: Outcome, error: str, at: str, inputs: list[bytes], folder: Path) -> Failure:
    """Write what is needed to repeat a failure."""
    digest = hashlib.sha256(b"".join(inputs)).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{outcome.target}-{digest}.json"
    failure = Failure(outcome.target, outcome.seed, outcome.inputs, error, at, str(path))
    encoded = [base64.b64encode(data).decode() for data in inputs]
    path.write_text(json.dumps({**asdict(failure), "inputs": encoded}, indent=1), encoding="utf-8")
    return failure

"""Words in a picture, by the ``tesseract`` program where it is installed. It only ever adds to what else was found."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from dicomnode.deid.text_regions import TextRegion

_WALL_S = 30.0
_MOST_SIDE = 2400
_LEAST_CONFIDENCE, _LEAST_LETTERS = 70.0, 3
_COLUMNS = 12
_MOST_OUTPUT = 4 << 20


class Tesseract:
    """Calls ``program``, by default the first ``tesseract`` on PATH. What it reads is not kept, only where it stood."""

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def installed(cls) -> Tesseract | None:
        """The engine of this machine, or None."""
        program = shutil.which("tesseract")
        return cls(program) if program else None

    def regions(self, frame: npt.NDArray[np.generic]) -> list[TextRegion]:
        """Boxes of words of three letters or digits and more. Nothing when the program fails or takes too long."""
        grey, step = _eight_bits(frame)
        try:
            answer = subprocess.run(  # noqa: S603 - a program of the operator's PATH, no shell
                [self._program, "stdin", "stdout", "--psm", "11", "tsv"],
                input=_pgm(grey),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_WALL_S,
                check=False,
                env={"PATH": os.environ.get("PATH", ""), "OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return []
        return list(_words(answer.stdout[:_MOST_OUTPUT], step)) if answer.returncode == 0 else []


def _eight_bits(frame: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.uint8], int]:
    values = frame.astype(np.float32)
    values = values if values.ndim == 2 else values.mean(axis=2)
    step = -(-max(values.shape) // _MOST_SIDE)
    values = values[::step, ::step]
    low, high = float(values.min()), float(values.max())
    return ((values - low) * (255 / max(high - low, 1e-6))).astype(np.uint8), step


def _pgm(grey: npt.NDArray[np.uint8]) -> bytes:
    return b"P5 %d %d 255\n" % (grey.shape[1], grey.shape[0]) + np.ascontiguousarray(grey).tobytes()


def _words(table: bytes, step: int) -> Iterator[TextRegion]:
    """Of a TSV: level, four numbers of order, left, top, width, height, conf, text."""
    for line in table.decode("utf-8", "replace").splitlines()[1:]:
        cells = line.split("\t")
        if len(cells) != _COLUMNS or sum(letter.isalnum() for letter in cells[11]) < _LEAST_LETTERS:
            continue
        try:
            left, top, width, height = (int(cell) * step for cell in cells[6:10])
            confidence = float(cells[10])
        except ValueError:
            continue
        if confidence >= _LEAST_CONFIDENCE and width > 0 and height > 0:
            yield TextRegion(max(0, left), max(0, top), width, height, round(min(confidence, 100) / 100, 3))

"""Which accelerator a training or an evaluation runs on, and with how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dicomnode.errors import ConfigError


def accelerator_of(wish: str) -> str:
    """ "cpu" or "cuda:N" for "auto" (a GPU when there is one), "cpu", "cuda" or "cuda:N".

    Raises ConfigError for another word, or a GPU that is not there.
    """
    if wish == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if wish == "cpu":
        return wish
    name, _, number = wish.partition(":")
    if name != "cuda" or not (number or "0").isdigit():
        raise ConfigError(f"accelerator {wish!r}: auto, cpu or cuda")
    if int(number or "0") >= torch.cuda.device_count():
        raise ConfigError(f"accelerator {wish} is not there")
    return f"cuda:{number or 0}"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """``count`` CPU threads inside the block, for torch and for the linear algebra of numpy."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        torch.set_num_threads(before)

"""How network calls run on an accelerator: fixed shapes, reduced precision, compiled where it holds, memory kept.

On the CPU a call runs as it is, in float32. On a GPU batches are padded to a few fixed sizes, convolutions run in
bfloat16 and channels-last, and the call is compiled with CUDA graphs; each of these is kept only when the result
agrees with float32 (methods.md, 4.4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Call = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(images, masks) → (scores, maps): shapes (n, 1, size, size) twice → (n,) and (n, 1, size, size)."""

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
TOLERANCE = 0.02
"""Largest difference to float32 that a fast way may make, as a share of the spread of the float32 maps."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How calls are to run. ``batch``: planes at once. ``padded``: batches are filled up to a size of ``BUCKETS``.

    ``half``: bfloat16 autocast and channels-last. ``compiled``: torch.compile with CUDA graphs.
    """

    accelerator: str = "cpu"
    batch: int = 16
    padded: bool = False
    half: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError("at least one plane at once")


def plan_for(accelerator: str, *, batch: int = 64, compiled: bool = True) -> ExecutionPlan:
    """The plan of an accelerator: plain on the CPU, every fast way on a GPU ("cuda:0")."""
    if not accelerator.startswith("cuda"):
        return ExecutionPlan(accelerator)
    return ExecutionPlan(accelerator, batch, padded=True, half=True, compiled=compiled)


@dataclass(slots=True)
class Execution:
    """Runs one ``call`` by a plan, and remembers which fast ways hold.

    ``eager``: the call in float32, the truth. ``to_cpu``: moves what the call uses to the CPU, the last way out of a
    full memory. ``ways``: what is in use, for reports ("bfloat16", "compiled", "batch 16", "cpu").
    """

    eager: Call
    plan: ExecutionPlan
    to_cpu: Callable[[], None]
    _call: Call | None = None
    _batch: int = 0
    _on_cpu: bool = False
    _ways: list[str] = field(default_factory=list)

    @property
    def ways(self) -> tuple[str, ...]:
        return (*self._ways, f"batch {self._batch or self.plan.batch}", *(("cpu",) if self._on_cpu else ()))

    def run(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """The call over all rows of ``images`` and ``masks``, shape (n, 1, size, size); answers on the CPU."""
        scores, maps, start = [], [], 0
        self._batch = self._batch or self.plan.batch
        while start < len(images):
            part = slice(start, start + self._batch)
            try:
                score, heat = self._part(images[part], masks[part])
            except torch.OutOfMemoryError:
                self._make_room()
                continue
            scores.append(score.detach().float().cpu())
            maps.append(heat.detach().float().cpu())
            start += len(score)
        return torch.cat(scores), torch.cat(maps)

    def _part(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        n = len(images)
        if self._on_cpu:
            return self.eager(images.cpu(), masks.cpu())
        if self.plan.padded:
            images, masks = padded(images, bucket(n, self._batch)), padded(masks, bucket(n, self._batch))
        if self._call is None:
            self._call = self._chosen(images, masks)
        scores, maps = self._call(images, masks)
        return scores[:n], maps[:n]

    def _make_room(self) -> None:
        """Half the batch; at one plane the CPU."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._on_cpu:
            raise torch.OutOfMemoryError("one plane does not fit into the memory of this machine")
        if self._batch > 1:
            self._batch //= 2
            _log.warning("accelerator out of memory, batch halved", extra={"batch": self._batch})
            return
        _log.warning("accelerator out of memory at one plane, going on on the CPU")
        self._on_cpu = True
        self.to_cpu()

    def _chosen(self, images: Tensor, masks: Tensor) -> Call:
        """The fastest way whose answers agree with float32 on this batch."""
        if not self.plan.half and not self.plan.compiled:
            return self.eager
        truth = self.eager(images, masks)
        for ways, call in self._candidates():
            if self._agrees(call, images, masks, truth):
                self._ways = list(ways)
                return call
        self._ways = []
        return self.eager

    def _candidates(self) -> Iterator[tuple[tuple[str, ...], Call]]:
        half = _in_half(self.eager, self.plan.accelerator) if self.plan.half else None
        if half is not None and self.plan.compiled:
            yield ("bfloat16", "compiled"), _compiled(half)
        if half is not None:
            yield ("bfloat16",), half
        if self.plan.compiled:
            yield ("compiled",), _compiled(self.eager)

    def _agrees(self, call: Call, images: Tensor, masks: Tensor, truth: tuple[Tensor, Tensor]) -> bool:
        try:
            answer = call(images, masks)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - process edge: a compiler may fail in any way, eager code goes on
            _log.warning("a fast way does not run here", extra={"error": type(error).__name__})
            return False
        return all(difference(a, b) <= TOLERANCE for a, b in zip(answer, truth, strict=True))


def difference(answer: Tensor, truth: Tensor) -> float:
    """max |answer - truth| as a share of the spread of ``truth``; infinite when a number is not finite."""
    answer, truth = answer.detach().float(), truth.detach().float()
    if not bool(torch.isfinite(answer).all()):
        return float("inf")
    spread = float(truth.max() - truth.min()) or float(truth.abs().max()) or 1.0
    return float((answer - truth).abs().max()) / spread


def bucket(n: int, largest: int) -> int:
    """The smallest fixed batch size that holds n planes, at most ``largest`` (which is at least n)."""
    return next((size for size in BUCKETS if n <= size <= largest), max(n, largest))


def padded(rows: Tensor, count: int) -> Tensor:
    """``rows`` with the last one repeated until there are ``count``."""
    if len(rows) == count:
        return rows
    return torch.cat([rows, rows[-1:].expand(count - len(rows), *rows.shape[1:])])


def _in_half(call: Call, accelerator: str) -> Call:
    kind = accelerator.partition(":")[0]

    def half(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(kind, dtype=torch.bfloat16):
            scores, maps = call(images.contiguous(memory_format=torch.channels_last), masks)
        return scores.float(), maps.float()

    return half


def _compiled(call: Call) -> Call:
    graphs: Call = torch.compile(call, mode="reduce-overhead", dynamic=False)

    def cloned(images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        scores, maps = graphs(images, masks)
        return scores.clone(), maps.clone()  # a CUDA graph writes its next answer into the same memory

    return cloned

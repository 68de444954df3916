"""How network calls run: fixed shapes, checked fast ways, and what happens when memory is full."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dicomnode.detectors.contract import Array
from dicomnode.detectors.execution import Execution, ExecutionPlan, bucket, difference, padded, plan_for
from dicomnode.detectors.methods.contract import apart
from dicomnode.detectors.methods.placed import placed, tensors_of

ROWS = torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))
MASKS = torch.ones_like(ROWS)


class Recorder:
    """A call that remembers its batches; a batch of more than ``room`` planes does not fit."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.sizes = room, []
        torch.manual_seed(0)
        self.network = nn.Conv2d(1, 1, 3, padding=1)

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("full")
        self.sizes.append(len(images))
        with torch.inference_mode():
            maps = self.network(images).abs()
        return (maps * masks).flatten(1).mean(1), maps


def expected() -> tuple[Tensor, Tensor]:
    return Recorder()(ROWS, MASKS)


def nothing() -> None:
    """The call of these tests is on the CPU already."""


def test_the_plain_way_on_the_cpu_is_exact_and_in_batches():
    """Float32, no padding, nothing compiled: batches as they come."""
    call = Recorder()
    scores, maps = Execution(call, ExecutionPlan(batch=4), nothing).run(ROWS, MASKS)
    assert call.sizes[-3:] == [4, 4, 3]
    assert torch.equal(scores, expected()[0])
    assert torch.equal(maps, expected()[1])


def test_padding_brings_every_batch_to_a_fixed_size_and_changes_no_answer():
    """A GPU sees few shapes; the rows that fill a batch up are not answered."""
    call = Recorder()
    scores, maps = Execution(call, ExecutionPlan(batch=8, padded=True), nothing).run(ROWS, MASKS)
    assert set(call.sizes) <= {8, 4}
    assert len(scores) == len(maps) == 11
    assert torch.allclose(maps, expected()[1], atol=1e-6)


def test_a_full_memory_halves_the_batch_and_loses_no_plane():
    """8 do not fit, 4 do not, 2 do."""
    call = Recorder(room=2)
    execution = Execution(call, ExecutionPlan(batch=8), nothing)
    scores, _ = execution.run(ROWS, MASKS)
    assert torch.allclose(scores, expected()[0], atol=1e-6)
    assert "batch 2" in execution.ways
    execution.run(ROWS, MASKS)
    assert max(call.sizes) == 2


def test_when_one_plane_does_not_fit_the_cpu_goes_on_and_then_it_is_an_error():
    """The CPU is the last way out; a plane that does not fit there either is told."""
    call = Recorder(room=0)
    execution = Execution(call, ExecutionPlan(batch=2), lambda: setattr(call, "room", 5))
    scores, _ = execution.run(ROWS, MASKS)
    assert len(scores) == 11
    assert "cpu" in execution.ways
    hopeless = Recorder(room=0)
    with pytest.raises(torch.OutOfMemoryError):
        Execution(hopeless, ExecutionPlan(batch=2), nothing).run(ROWS, MASKS)


def test_bfloat16_is_used_when_it_agrees_with_float32():
    """The fast way is taken and said; its answers stay within the tolerance."""
    execution = Execution(Recorder(), ExecutionPlan(batch=16, half=True), nothing)
    _, maps = execution.run(ROWS, MASKS)
    assert execution.ways[0] == "bfloat16"
    assert difference(maps, expected()[1]) <= 0.02


def test_bfloat16_is_left_when_it_does_not_agree():
    """A network that loses its answer in eight bits of mantissa stays in float32."""

    class Delicate(Recorder):
        def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
            scores, maps = super().__call__(images, masks)
            if torch.is_autocast_enabled("cpu"):
                maps = maps + 1.0
            return scores, maps

    execution = Execution(Delicate(), ExecutionPlan(batch=16, half=True), nothing)
    _, maps = execution.run(ROWS, MASKS)
    assert "bfloat16" not in execution.ways
    assert torch.allclose(maps, expected()[1])


def test_numbers_that_are_not_finite_never_agree():
    """An overflow in a fast way is a difference, however small the rest."""
    assert difference(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 2.0])) == float("inf")


def test_buckets_are_few_and_hold_what_they_are_for():
    """Powers of two up to the batch."""
    assert [bucket(n, 16) for n in (1, 3, 9, 16)] == [1, 4, 16, 16]
    assert bucket(5, 6) == 6
    assert padded(ROWS[:3], 5).shape[0] == 5


def test_the_plan_of_the_cpu_is_plain_and_that_of_a_gpu_is_fast():
    """What runs where is decided in one place."""
    assert plan_for("cpu") == ExecutionPlan("cpu")
    gpu = plan_for("cuda:0")
    assert gpu.half
    assert gpu.compiled
    assert gpu.padded


def test_planes_are_moved_once():
    """Placed planes give their own tensors, not new ones."""
    images: Array = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    there = placed(apart(images, images > 0.5), "cpu")
    first, second = tensors_of(there), tensors_of(there)
    assert first[0] is second[0]
    assert np.array_equal(first[0][:, 0].numpy(), images)
    assert np.array_equal(first[1][:, 0].numpy() > 0, images > 0.5)

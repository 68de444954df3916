"""A comparison fits and measures every method alike, survives failures and goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dicomnode.detectors.methods.contract import Judgement, Material, Run
from dicomnode.errors import ConfigError
from dicomnode.train import pace
from dicomnode.train.compare import FAILED, NOT_APPLICABLE, Plan, compare
from dicomnode.train.compare_table import markdown, ordered
from dicomnode.train.grid import load_grid
from dicomnode.train.mixed import Mixed
from dicomnode.train.pace import OutOfTime, fit_within, time_limit
from dicomnode.train.recipes import recipe_for
from tests.method_phantoms import planes
from tests.picture_folders import chest_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    torch.set_num_threads(1)
    return chest_folder(tmp_path_factory.mktemp("data"), healthy=24)


@pytest.fixture
def plan(data, tmp_path) -> Plan:
    return Plan(recipe_for("cxr"), data, tmp_path / "out", ("pca-residual", "ae-u"), 32, 30, commit="abc")


def test_rows_hold_figures_and_the_table_sorts_them(plan):
    """AUROC with interval and the trivial rival, pixel figures, times, and a Markdown page."""
    rows = compare(plan)
    assert {row["method"] for row in rows} == {"pca-residual", "ae-u"}
    for row in rows:
        assert row["status"] == "done", row["reason"]
        assert row["auroc_ci"][0] <= row["auroc"] <= row["auroc_ci"][1]
        assert row["difference_to_trivial"]["ci"]
        assert row["pixel_ap"] > 0
        assert row["ms_per_plane"] > 0
        assert row["commit"] == "abc"
    page = markdown("Methods", {"seed": 0}, rows)
    assert page.index("## auto-encoder") < page.index("## classical")
    assert "Not a medical device" in page


def test_a_comparison_goes_on_where_it_stopped(plan):
    """Rows that are done are not done again; failed ones are; another plan is refused."""
    compare(plan)
    kept = json.loads((plan.out / "results.json").read_text())
    kept["rows"][0]["status"] = FAILED
    (plan.out / "results.json").write_text(json.dumps(kept))
    told: list[str] = []
    compare(plan, lambda row: told.append(row["method"]))
    assert told == [kept["rows"][0]["method"]]
    with pytest.raises(ConfigError, match="another comparison"):
        compare(replace(plan, seed=1))


def test_what_cannot_run_is_a_row_with_its_reason(plan):
    """Settings that a method does not take fail alone."""
    rows = ordered(compare(replace(plan, settings={"smooth": 3}, methods=("ae-u", "dae"))))
    assert [row["method"] for row in rows] == ["dae", "ae-u"]
    assert rows[1]["status"] == FAILED
    assert "smooth" in rows[1]["reason"]


def test_neighbours_cannot_be_had_from_projections(plan):
    """A method that needs a stack says so instead of failing."""
    from dicomnode.detectors.methods.catalogue import catalogue

    names = tuple(entry.name for entry in catalogue().values() if entry.stacked)
    rows = compare(replace(plan, methods=names))
    assert all(row["status"] == NOT_APPLICABLE and "projections" in row["reason"] for row in rows)


def test_prepared_planes_are_kept_and_the_same(data, tmp_path):
    """The cache answers what preparing answers, and is made again when labels.csv changes."""
    first = load_grid(recipe_for("cxr"), data, "val", 32, tmp_path)
    again = load_grid(recipe_for("cxr"), data, "val", 32, tmp_path)
    assert np.array_equal(first.planes.images, again.planes.images)
    assert np.array_equal(first.truths, again.truths)
    assert first.features.keys() == again.features.keys()
    assert first.truths[[i for i in first.kept if first.pictures[i].label == 1]].any(axis=(1, 2)).all()


def test_a_split_that_shares_patients_is_pooled_and_held_back_ones_are_left_out():
    """The split itself would be a label, and a fold must not see the patients that it calibrates on."""
    healthy, _ = planes(0, 4)
    mixed, _ = planes(1, 6)
    names = ["a", "a", "b", "b", "c", "c"]
    assert len(Mixed(mixed, names, shared=True).without({"b"}, healthy)) == 4 + 4
    assert len(Mixed(mixed, names, shared=False).without({"b", "c"}, healthy)) == 2


class Slow:
    """A method of 1000 steps, each of which takes what ``rest`` takes, that tells its progress or not."""

    def __init__(self, rest: Callable[[], None], *, tells: bool) -> None:
        self.rest, self.tells, self.done = rest, tells, 0

    def fit(self, material: Material, run: Run) -> None:
        for step in range(run.steps or 1000):
            self.rest()
            self.done += 1
            if self.tells and run.progress and step % 5 == 0:
                run.progress("fit", step / (run.steps or 1000))

    def judge(self, planes: object) -> Judgement:
        raise NotImplementedError


def test_a_slow_method_gets_fewer_steps(monkeypatch):
    """The limit holds: of its 1000 steps of a second each, as many as fit in a minute, with a margin."""
    material, now = Material(planes(0, 4)[0]), [0.0]

    def second() -> None:
        now[0] += 1.0

    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    method, steps = fit_within(lambda: Slow(second, tells=True), material, Run(), 1000, 60.0)
    assert method.done == steps
    assert 40 <= steps < 60


def test_a_silent_method_is_stopped():
    """The limit holds, whatever a method does."""
    material, made = Material(planes(0, 4)[0]), list[Slow]()

    def silent() -> Slow:
        made.append(Slow(lambda: time.sleep(0.1), tells=False))
        return made[-1]

    with pytest.raises(ConfigError, match="stopped"):
        fit_within(silent, material, Run(), 1000, 0.3)
    assert made[0].done < 1000
    with pytest.raises(OutOfTime), time_limit(0.05):
        time.sleep(60)

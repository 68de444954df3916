"""The watch on drift over the rows: a reference first, windows, alarms told once, and their end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dicomnode.cli.drift import drift as cli_drift
from dicomnode.cli.status import status as cli_status
from dicomnode.console.metrics import prometheus
from dicomnode.console.page import overview
from dicomnode.console.status import read_status
from dicomnode.detect.drift import read_drift, sweep_drift
from dicomnode.detect.drift_record import BINS, protocol_hash, scanner_hash
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.store.tables import AssignmentRow, DriftRow, ObservationRow, SeriesRow, StudyRow
from tests.integration.detect_fixtures import PEER, Bench, complete_series, finding_result

SETTINGS = "[drift]\nwindow = 30\nmin_series = 60\nalpha = 0.01\n"


@pytest.fixture
def bench(tmp_path: Path):
    made = Bench(tmp_path, PEER + SETTINGS)
    with made.store.write() as session:
        study = StudyRow(StudyInstanceUID="1.2", PatientID="SECRET-ID", created_at=1.0)
        session.add(study)
        session.flush()
        times = {"first_received_at": 1.0, "last_received_at": 2.0}
        session.add(SeriesRow(study_id=study.id, SeriesInstanceUID="1.2.3", CallingAETitle="CT1", **times))
    yield made
    made.store.close()


def add(bench: Bench, scores: np.ndarray, stratum: str = "a" * 16, bright: int = 0) -> None:
    """One analysed Series for every score; ``bright``: bins by which its histogram has moved."""
    with bench.store.write() as session:
        count = len(session.query(AssignmentRow).all())
        draw = np.random.default_rng(count)
        for number, score in enumerate(scores):
            row = AssignmentRow(series_id=1, generation=1, route=f"r{count + number}", send_to=[], created_at=1.0)
            session.add(row)
            session.flush()
            shares = np.roll(np.exp(-0.5 * ((np.arange(BINS) - 6 + draw.normal(0, 0.3)) / 2) ** 2), bright)
            session.add(
                ObservationRow(
                    assignment_id=row.id,
                    stratum=stratum,
                    CallingAETitle="CT1",
                    scanner="s" * 16,
                    protocol="p" * 16,
                    detector="ct-head",
                    weights_sha256="ab" * 32,
                    score=float(score),
                    acquisition=float(draw.random()),
                    histogram=(shares / shares.sum()).tolist(),
                    observed_at=float(number),
                )
            )


def uniform(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(count)


def test_nothing_is_said_before_the_reference_is_whole(bench: Bench) -> None:
    add(bench, uniform(59))
    assert sweep_drift(bench.store, bench.config, 10.0) == 0
    assert bench.rows(DriftRow) == []
    (told,) = read_drift(bench.store, bench.config)
    assert (told["state"], told["reference"]) == ("collecting its reference", 59)


def test_steady_scores_raise_no_alarm(bench: Bench) -> None:
    add(bench, uniform(60 + 95))
    assert sweep_drift(bench.store, bench.config, 10.0) == 0
    (told,) = read_drift(bench.store, bench.config)
    assert (told["state"], told["alarms"], told["series"]) == ("steady", {}, 155)
    assert bench.audited("drift") == []


def test_scores_that_have_moved_alarm_once_everywhere(bench: Bench) -> None:
    """Audit record, metric, console page, status command and ``dicomnode drift``, without patient data."""
    add(bench, uniform(60))
    add(bench, 0.7 + 0.3 * uniform(30, 1))
    assert sweep_drift(bench.store, bench.config, 10.0) >= 1
    assert sweep_drift(bench.store, bench.config, 20.0) == 0
    (record,) = bench.audited("drift")
    assert "score" in record["alarms"]
    assert (record["CallingAETitle"], record["detector"], record["series"]) == ("CT1", "ct-head", 30)
    status = read_status(bench.config, bench.store, bench.spool, 30.0)
    assert status["drift"]["watched"] == 1
    metrics, page = prometheus(status), overview(status)
    assert f'dicomnode_drift_alarms{{sender="CT1",detector="ct-head",stratum="{"a" * 16}"}}' in metrics
    assert "scores have drifted at 1 place" in page
    assert "KS p" in page
    assert "SECRET-ID" not in metrics + page + json.dumps(record)


def test_a_lasting_shift_is_found_before_the_window_is_full(bench: Bench) -> None:
    """CUSUM: twenty-nine Series are enough when all of them score high."""
    add(bench, 0.4 + 0.2 * uniform(60))
    add(bench, 0.62 + 0.1 * uniform(20, 1))
    assert sweep_drift(bench.store, bench.config, 10.0) == 1
    assert list(bench.rows(DriftRow)[0].alarms) == ["score mean"]


def test_an_alarm_ends_after_a_whole_window_without_one(bench: Bench) -> None:
    add(bench, uniform(60))
    add(bench, 0.7 + 0.3 * uniform(30, 1))
    sweep_drift(bench.store, bench.config, 10.0)
    add(bench, uniform(29, 2))
    sweep_drift(bench.store, bench.config, 20.0)
    assert bench.rows(DriftRow)[0].alarms
    add(bench, uniform(1, 3))
    sweep_drift(bench.store, bench.config, 30.0)
    row = bench.rows(DriftRow)[0]
    assert (row.alarms, row.alarmed_at) == ({}, None)
    assert len(bench.audited("drift ended")) == 1


def test_brighter_images_alarm_though_the_scores_stay(bench: Bench) -> None:
    """A new kernel or window is seen in the histogram."""
    add(bench, uniform(60))
    add(bench, uniform(30, 1), bright=2)
    assert sweep_drift(bench.store, bench.config, 10.0) >= 1
    assert "intensity mean" in bench.rows(DriftRow)[0].alarms
    assert "score" not in bench.rows(DriftRow)[0].alarms


def test_strata_are_judged_apart(bench: Bench) -> None:
    """Another model of the same scanner starts with a reference of its own."""
    add(bench, uniform(90))
    add(bench, 0.9 + 0.1 * uniform(90, 1), stratum="b" * 16)
    assert sweep_drift(bench.store, bench.config, 10.0) == 0
    assert {row.stratum for row in bench.rows(DriftRow)} == {"a" * 16, "b" * 16}


def test_the_commands_show_the_alarm(bench: Bench, tmp_path: Path) -> None:
    """``dicomnode drift`` as a table and as JSON, and a line in ``dicomnode status``."""
    add(bench, uniform(60))
    add(bench, 0.7 + 0.3 * uniform(30, 1))
    sweep_drift(bench.store, bench.config, 10.0)
    path = tmp_path / "node.toml"
    node = f'[node]\ndata_dir = "{tmp_path}"\ndatabase = "{bench.store.url}"\n'
    path.write_text(node + PEER + SETTINGS, encoding="utf-8")
    table = CliRunner().invoke(cli_drift, ["--config", str(path)])
    assert table.exit_code == 0
    assert "alarm" in table.output
    (told,) = json.loads(CliRunner().invoke(cli_drift, ["--config", str(path), "--json"]).output)
    assert told["alarms"]["score"].startswith("KS p")
    assert "drift ct-head from CT1: " in CliRunner().invoke(cli_status, ["--config", str(path)]).output


def test_an_analysis_leaves_one_observation_however_often_it_is_done(tmp_path: Path) -> None:
    """It is written in the transaction of the result, with hashes instead of words."""
    bench = Bench(tmp_path)
    complete_series(bench.store, bench.spool)
    assert bench.worker(finding_result).step()
    (row,) = bench.rows(ObservationRow)
    assert (row.CallingAETitle, row.detector, row.score, row.acquisition) == ("SCANNER", "scripted", 0.97, None)
    assert len(row.histogram) == BINS
    bench.store.close()


def test_scanner_and_protocol_are_hashes_that_ignore_case_and_padding() -> None:
    """The same scanner is the same stratum; a description never appears in clear."""

    def of(**values: str) -> SeriesSummary:
        return SeriesSummary(SeriesReference("1.2", "1.3"), 1, {name: (value,) for name, value in values.items()})

    first = of(Manufacturer="ACME ", ManufacturerModelName="One", Modality="CT", SeriesDescription="Head")
    again = of(Manufacturer="acme", ManufacturerModelName="ONE", Modality="CT", SeriesDescription="head ")
    other = of(Manufacturer="acme", ManufacturerModelName="Two", Modality="CT", SeriesDescription="chest")
    assert (scanner_hash(first), protocol_hash(first)) == (scanner_hash(again), protocol_hash(again))
    assert scanner_hash(first) != scanner_hash(other)
    assert protocol_hash(first) != protocol_hash(other)
    assert len(scanner_hash(first)) == 16

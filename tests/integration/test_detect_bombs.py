"""S8, S10, S11: hostile files end as a reason, and the worker goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicomnode.config.detect import DetectSettings
from dicomnode.detect.reader import Reader
from dicomnode.detect.worker import DetectWorker
from dicomnode.dicom.uids import derived_uid
from dicomnode.store.spool import digest
from dicomnode.store.tables import AssignmentRow, InstanceRow, SeriesRow, StudyRow
from tests.bombs import BOMBS, file_of
from tests.integration.detect_fixtures import Bench, assign, ct_slice, finding_result

MIB = 1 << 20


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bombs"))


@pytest.fixture(scope="module")
def worker(bench: Bench) -> Iterator[DetectWorker]:
    """Thirty seconds of computing for a Series, however busy the machine is."""
    with Reader(DetectSettings(reader_cpu_s=30)) as reader:
        yield bench.worker(finding_result, reader)


def series_of(bench: Bench, name: str, files: list[bytes]) -> int:
    """A complete Series of these files with its ``detect`` job; returns the Assignment's id."""
    with bench.store.write() as session:
        study = StudyRow(StudyInstanceUID=derived_uid("study", name), PatientID="ID-1", created_at=1.0)
        session.add(study)
        session.flush()
        series = SeriesRow(
            generation=1,
            study_id=study.id,
            SeriesInstanceUID=derived_uid("series", name),
            Modality="CT",
            CallingAETitle="SCANNER",
            state="complete",
            first_received_at=1.0,
            last_received_at=2.0,
        )
        session.add(series)
        session.flush()
        for index, content in enumerate(files):
            session.add(
                InstanceRow(
                    series_id=series.id,
                    SOPInstanceUID=derived_uid("image", name, str(index)),
                    SOPClassUID=CTImageStorage,
                    TransferSyntaxUID=ExplicitVRLittleEndian,
                    sha256=digest(content),
                    size=len(content),
                    path=bench.spool.store((content,), "received", digest(content + name.encode())),
                    header={"Modality": ["CT"]},
                    generation=1,
                    received_at=2.0,
                )
            )
        return assign(session, series)


def outcome(bench: Bench, assignment: int) -> tuple[str | None, str]:
    with bench.store.read() as session:
        row = session.get_one(AssignmentRow, assignment)
        return row.outcome, row.reason


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_with_a_reason_and_the_next_series_is_analysed(
    bench: Bench, worker: DetectWorker, name: str
) -> None:
    """S8, S10, S11: bounded computing time, little memory in the worker, an outcome; the next Series is analysed."""
    before = psutil.Process().memory_info().rss
    bomb = series_of(bench, name, [BOMBS[name]()])
    made = psutil.Process().memory_info().rss
    sound = series_of(bench, "after " + name, [file_of(ct_slice(number)) for number in (1, 2, 3)])
    assert worker.step()
    grown = psutil.Process().memory_info().rss - max(before, made)
    assert worker.step()
    said, reason = outcome(bench, bomb)
    assert said in ("not analysed", "failed")
    assert reason
    assert "TEST^CASE" not in reason
    assert outcome(bench, sound)[0] == "findings"
    assert grown < 64 * MIB
    assert "computed for more" not in reason
    assert "took longer" not in reason


def test_every_limit_of_the_reader_can_be_set(tmp_path: Path) -> None:
    """S8, S11: memory, computing time and volume are settings; what breaks them is Permanent and names the limit."""
    bench = Bench(tmp_path)
    files = [file_of(ct_slice(number)) for number in (1, 2, 3)]
    small = DetectSettings(reader_memory_mb=128, volume_memory_mb=1)
    with Reader(small) as reader:
        worker = bench.worker(finding_result, reader)
        bomb = series_of(bench, "inflates", [BOMBS["S8 deflate 1000:1"]()])
        large = series_of(bench, "large", [_large(number) for number in (1, 2)])
        sound = series_of(bench, "sound", files)
        for _ in range(3):
            assert worker.step()
    assert outcome(bench, bomb) == ("failed", "the reader needed more than 128 MiB of memory")
    assert outcome(bench, large) == ("not analysed", "the series needs more than 1048576 bytes of memory")
    assert outcome(bench, sound)[0] == "findings"


def _large(number: int) -> bytes:
    dataset = ct_slice(number)
    dataset.Rows = dataset.Columns = 512
    dataset.PixelData = bytes(2 * 512 * 512)
    return file_of(dataset)

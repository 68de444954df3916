"""The tool that sends corpora: what it takes out of archives, what it makes of a file, when it finds fault."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from dicomnode.dicom.sop_classes import CT_IMAGE
from tests.bench.watch import Vitals
from tests.raw_scu import EXPLICIT, IMPLICIT, Context
from tests.robustness import broken, corpus
from tests.robustness.corpus import Sample, TooMuch, gather
from tests.robustness.objects import attempts, distinct, self_named
from tests.robustness.run import Fate, HonestPeer, judge
from tests.robustness.table import by_category


def archive(path: Path, members: dict[str, bytes | None]) -> Path:
    """A tar file; None makes a link of the member."""
    with tarfile.open(path, "w:xz") as made:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return path


def test_names_in_an_archive_never_become_paths(tmp_path: Path) -> None:
    """A member that climbs out of its folder is unpacked under a number of ours; what describes the corpus is left."""
    archive(tmp_path / "a.tar.xz", {"../../evil/x.dcm": b"one", "/etc/y.dcm": b"two", "z/manifest.csv": b"csv"})
    (tmp_path / "out").mkdir()
    found = gather([tmp_path], tmp_path / "out")
    assert [(one.category, one.path.read_bytes()) for one in found] == [("../../evil", b"one"), ("/etc", b"two")]
    assert all(one.path.parent == tmp_path / "out" for one in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.xz", "out"]


def test_links_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive is not trusted either."""
    with pytest.raises(TooMuch):
        gather([archive(tmp_path / "a.tar.xz", {"link.dcm": None})], tmp_path)
    monkeypatch.setattr(corpus, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TooMuch):
        gather([archive(tmp_path / "b.tar.xz", {"x.dcm": bytes(1001)})], tmp_path)
    monkeypatch.setattr(corpus, "MAX_TOTAL_BYTES", 1500)
    with pytest.raises(TooMuch):
        gather([archive(tmp_path / "c.tar.xz", {"x.dcm": bytes(1000), "y.dcm": bytes(1000)})], tmp_path)


def test_a_file_is_sent_as_it_says_itself() -> None:
    """SOP Class, Instance and transfer syntax of the meta information; the data set byte for byte."""
    (one,) = attempts(broken.file(broken.data_set(IMPLICIT), IMPLICIT), 1)
    assert (one.context, one.instance, one.assumed) == (Context(CT_IMAGE, IMPLICIT), broken.INSTANCE, False)
    assert one.data == broken.data_set(IMPLICIT)


def test_a_file_without_meta_information_is_tried_in_both_plain_syntaxes() -> None:
    """So that the receiver sees its bytes too; under the UID that they seem to name."""
    found = attempts(broken.data_set(), 1)
    assert [one.context.transfer_syntax for one in found] == [EXPLICIT, IMPLICIT]
    assert all(one.assumed and one.data == broken.data_set() for one in found)
    assert found[0].instance == broken.INSTANCE
    noise = attempts(b"no DICOM at all", 7)
    assert [one.instance for one in noise] == ["2.25.777", "2.25.777"]


@pytest.mark.parametrize("name", broken.files())
def test_no_file_is_too_broken_to_be_sent(name: str) -> None:
    """The sender itself takes every one of them."""
    for one in attempts(broken.files()[name], 3):
        assert len(distinct(one, 4).data) == len(one.data)
        self_named(one)


def test_repeated_uids_are_replaced_in_place() -> None:
    """Other Study, Series and Instance, all else the same, none longer."""
    (one,) = attempts(broken.file(broken.data_set()), 1)
    other = distinct(one, 12)
    assert other.instance != one.instance
    assert broken.INSTANCE.encode() not in other.data.replace(other.instance.encode(), b"")
    assert len(other.data) == len(one.data)
    assert sum(a != b for a, b in zip(one.data, other.data, strict=True)) <= 3 * 8 + 8
    assert distinct(one, 13).data != other.data


def test_a_data_set_that_is_not_what_the_file_says_is_tried_under_its_own_name() -> None:
    (one,) = attempts(broken.file(broken.data_set()), 1)
    assert self_named(one) == []
    assert self_named(replace(one, instance="2.25.1"))[0].instance == broken.INSTANCE


def test_faults_are_found() -> None:
    """A process that was started again, memory, descriptors, a hang, a missing outcome: each is told."""
    was = Vitals(frozenset({1, 2}), 2**30, 100, 20)
    fine = Fate(Sample("a/b", "a", Path()), sendable=True, answers=["0x0000"], stored=["x"], outcomes=["findings"])
    honest = HonestPeer(0)
    honest.seconds = [0.1]
    rows = {("detect-1", 2)}
    assert judge((was, rows), (was, rows), honest, [fine], 0, honest_limit_s=1.0).faults == ()
    leaking = Vitals(frozenset({1, 3}), 2**31, 200, 40)
    hung = replace(fine, answers=["no answer"], outcomes=[])
    honest.seconds, honest.failures = [2.0], ["Refused"]
    found = judge((was, rows), (leaking, {("detect-2", 3)}), honest, [hung], 1, honest_limit_s=1.0)
    assert len(found.faults) == 9


def test_the_table_counts_each_file_once() -> None:
    """By category, with the answer to what the file says of itself, and the weightiest outcome."""
    sample = Sample("a/b", "a", Path())
    stored = Fate(sample, sendable=True, answers=["0x0000"], stored=["x"], outcomes=["not analysed", "findings"])
    refused = Fate(sample, sendable=False, answers=["no presentation context", "0xC000", "0xA900"], seconds=0.5)
    lines = by_category([stored, refused]).splitlines()
    assert lines[2].startswith("| a | 2 | 1 | 1 | 1 × 0xC000 | 1 |")
    assert lines[3].startswith("| **all** | 2 | 1 | 1 |")
    assert "0.50 s" in lines[2]

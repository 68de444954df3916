"""The engine of ``dicomnode send``: finding DICOM files by content and telling of each how it went."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from dicomnode.config import Peer
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.send import MAX_LOST, find_dicom, send_paths
from dicomnode.errors import Permanent
from tests.integration.deliver_fixtures import SR, FakePacs, aborting, make_file, nobody_at

Damage = Callable[[bytes], bytes]
PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two series of DICOM files without telling names, and what else lies in such folders."""
    root = tmp_path / "in"
    for name in ("b/1", "b/2", "a/IM0002", "a/IM0001"):
        make_file(root / name)
    make_file(root / "a/report", sop_class=SR)
    (root / "notes.txt").write_text("hello")
    (root / "empty.dcm").write_bytes(b"")
    (root / "a/picture.dcm").write_bytes(b"\x89PNG" * 100)
    (root / "DICOMDIR").write_bytes(Path(get_testdata_file("DICOMDIR")).read_bytes())
    return root


def test_dicom_files_are_found_by_content_in_the_order_of_their_names(folder: Path) -> None:
    found = find_dicom([folder])
    names = [str(path.relative_to(folder)) for path in found.files]
    assert names == ["a/IM0001", "a/IM0002", "a/report", "b/1", "b/2"]
    assert found.skipped == 4, "text, empty file, picture, DICOMDIR"


def test_a_file_named_twice_is_sent_once_and_a_missing_path_is_told(folder: Path) -> None:
    assert len(find_dicom([folder / "b" / "1", folder / "b"]).files) == 2
    with pytest.raises(Permanent, match="does not exist"):
        find_dicom([folder / "none"])


def test_every_file_gets_its_answer_over_one_association(folder: Path) -> None:
    with FakePacs() as pacs:
        answers = list(send_paths([folder], pacs.peer(), "SENDER", PATIENT))
    assert [answer.path for answer in answers] == list(find_dicom([folder]).files)
    assert all(answer.ok and answer.status == 0 and answer.text == "0x0000 success" for answer in answers)
    assert pacs.uids == [answer.SOPInstanceUID for answer in answers]
    assert pacs.associations == 1


def test_a_refused_file_is_told_with_its_status(folder: Path) -> None:
    with FakePacs(lambda number, *_: 0xC000 if number == 2 else 0) as pacs:
        answers = list(send_paths([folder], pacs.peer(), "SENDER", PATIENT))
    assert [answer.ok for answer in answers] == [True, False, True, True, True]
    assert (answers[1].status, answers[1].text) == (0xC000, "0xC000 cannot understand")


def test_after_an_abort_the_files_behind_go_over_a_new_association(folder: Path) -> None:
    with FakePacs(aborting(2)) as pacs:
        answers = list(send_paths([folder], pacs.peer(), "SENDER", PATIENT))
    assert [answer.ok for answer in answers] == [True, False, True, True, True]
    assert "aborted" in answers[1].text
    assert pacs.associations == 2
    assert len(set(pacs.uids)) == len(pacs.uids) == 5, "each file was tried once"


def test_a_peer_that_aborts_every_time_is_given_up(folder: Path) -> None:
    def abort(_: int, __: str, association) -> int:
        association.abort()
        return 0

    with FakePacs(abort) as pacs:
        answers = list(send_paths([folder], pacs.peer(), "SENDER", PATIENT))
    assert len(answers) == 5
    assert not any(answer.ok for answer in answers)
    assert len(pacs.received) == MAX_LOST


def test_a_peer_that_is_not_there_is_told_for_every_file(folder: Path) -> None:
    with nobody_at() as port:
        peer = Peer(name="p", ae_title="PACS", host="127.0.0.1", port=port)
        answers = list(send_paths([folder], peer, "SENDER", PATIENT))
    assert [answer.text for answer in answers] == ["connection refused"] * 5


def test_a_file_without_usable_uids_is_told_and_not_sent(tmp_path: Path) -> None:
    dataset = make_file(tmp_path / "whole.dcm")
    del dataset.SOPInstanceUID
    dataset.save_as(tmp_path / "broken.dcm", enforce_file_format=False)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "whole.dcm").read_bytes()[:180])
    with FakePacs() as pacs:
        answers = {answer.path.name: answer for answer in send_paths([tmp_path], pacs.peer(), "SENDER", PATIENT)}
    assert len(pacs.received) == 1
    assert answers["whole.dcm"].ok
    assert "missing or not valid" in answers["broken.dcm"].text
    assert not answers["cut.dcm"].ok


def test_our_own_ae_title_has_to_be_one() -> None:
    peer = Peer(name="p", ae_title="PACS", host="127.0.0.1", port=104)
    with pytest.raises(Permanent, match="our AE title"):
        list(send_paths([], peer, "A TITLE THAT IS TOO LONG", PATIENT))


@pytest.mark.parametrize(
    "damage",
    [
        lambda head: b"\x08\x00\x00\x00UL\x04\x00\x00\x00\x00\x00" + head[12:],
        lambda head: head[:12] + head[12:].replace(b"OB", b"ZZ", 1),
    ],
    ids=["no group 0002", "unknown VR"],
)
def test_damaged_file_meta_information_is_told_and_the_other_files_are_sent(tmp_path: Path, damage: Damage) -> None:
    """It is the file's fault, not the peer's: the Association goes on."""
    for name in ("a", "b"):
        make_file(tmp_path / name)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:132] + damage(content[132:]))
    with FakePacs() as pacs:
        answers = list(send_paths([tmp_path], pacs.peer(), "SENDER", PATIENT))
    assert [answer.ok for answer in answers] == [False, True]
    assert "file" in answers[0].text
    assert (len(pacs.uids), pacs.associations) == (1, 1)

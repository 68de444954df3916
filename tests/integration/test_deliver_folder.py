"""Results in a folder: whole files under their UIDs, never over somebody else's, never on a disk that is not meant."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite

from dicomnode.config import FolderPeer
from dicomnode.deliver.folder import write_files
from dicomnode.deliver.send import read_outbound
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.dicom.status import Disposition
from tests.integration.deliver_fixtures import make_file


@pytest.fixture
def share(tmp_path: Path) -> FolderPeer:
    (tmp_path / "share").mkdir()
    return FolderPeer(name="share", folder=tmp_path / "share")


def outbound(path: Path) -> OutboundFile:
    make_file(path)
    file = read_outbound(path)
    assert isinstance(file, OutboundFile)
    return file


def write(share: FolderPeer, *files: OutboundFile) -> list[SentStatus]:
    return list(write_files(share, files))


def place(share: FolderPeer, file: OutboundFile) -> Path:
    dataset = dcmread(file.path)
    series = share.folder / str(dataset.StudyInstanceUID) / str(dataset.SeriesInstanceUID)
    return series / f"{dataset.SOPInstanceUID}.dcm"


def test_one_folder_a_study_one_a_series_and_the_instance_as_name(share: FolderPeer, tmp_path: Path) -> None:
    files = [outbound(tmp_path / "a.dcm"), outbound(tmp_path / "b.dcm")]
    assert all(answer.accepted for answer in write(share, *files))
    assert sorted(path for path in share.folder.rglob("*") if path.is_file()) == sorted(
        place(share, file) for file in files
    )
    assert all(place(share, file).read_bytes() == file.path.read_bytes() for file in files)


def test_another_file_of_that_name_is_told_and_stays(share: FolderPeer, tmp_path: Path) -> None:
    file = outbound(tmp_path / "a.dcm")
    place(share, file).parent.mkdir(parents=True)
    place(share, file).write_bytes(b"other")
    (answer,) = write(share, file)
    assert answer.disposition is Disposition.PERMANENT
    assert answer.reason == "another file has its name already"
    assert place(share, file).read_bytes() == b"other"


def test_a_file_appears_only_when_it_is_whole_and_on_the_disk(
    share: FolderPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = outbound(tmp_path / "a.dcm")
    seen: list[tuple[bool, int]] = []
    sync = os.fsync

    def watching(descriptor: int) -> None:
        visible = [path for path in share.folder.rglob("*") if path.suffix == ".dcm"]
        seen.append((bool(visible), os.fstat(descriptor).st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watching)
    write(share, file)
    assert seen[0] == (False, file.path.stat().st_size)
    assert [visible for visible, _ in seen[1:]] == [True] * 3, "then the Series, the Study and the folder itself"


def test_what_a_crash_left_half_written_is_written_over(share: FolderPeer, tmp_path: Path) -> None:
    file = outbound(tmp_path / "a.dcm")
    target = place(share, file)
    target.parent.mkdir(parents=True)
    target.with_name(f".{target.stem}.part").write_bytes(b"half" * 1000)
    assert write(share, file)[0].accepted
    assert list(target.parent.iterdir()) == [target]
    assert target.read_bytes() == file.path.read_bytes()


def test_a_share_that_is_not_mounted_is_tried_again_and_not_replaced_by_the_local_disk(tmp_path: Path) -> None:
    away = FolderPeer(name="share", folder=tmp_path / "mnt" / "share")
    (answer,) = write(away, outbound(tmp_path / "a.dcm"))
    assert answer.lost
    assert answer.reason == "the folder does not exist, or its share is not mounted"
    assert not away.folder.exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_fault_is_tried_again_and_leaves_no_rubbish(
    share: FolderPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = outbound(tmp_path / "a.dcm")

    def broken(_: int) -> None:
        raise OSError(code, os.strerror(code), "Sentinel^Secret")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        (answer,) = write(share, file)
    assert answer.lost
    assert answer.reason == f"folder: {os.strerror(code)}"
    assert not [path for path in share.folder.rglob("*") if path.is_file()]
    assert write(share, file)[0].accepted


def test_a_share_that_cannot_sync_folders_is_good_enough(
    share: FolderPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def files_only(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112 - a descriptor
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    assert write(share, outbound(tmp_path / "a.dcm"))[0].accepted


@pytest.mark.parametrize("uid", ["../../escape", "/tmp/escape", ""])
def test_no_name_leads_out_of_the_folder(share: FolderPeer, tmp_path: Path, uid: str) -> None:
    file = outbound(tmp_path / "a.dcm")
    dataset = dcmread(file.path)
    dataset["StudyInstanceUID"]._value = uid
    dcmwrite(file.path, dataset)
    (answer,) = write(share, file)
    assert answer.disposition is Disposition.PERMANENT
    assert answer.reason == "the file names no Study, Series and Instance"
    assert not list(share.folder.iterdir())


def test_no_link_in_a_shared_folder_leads_the_node_elsewhere(share: FolderPeer, tmp_path: Path) -> None:
    """Whoever may write there could otherwise have any file of the node's user written over."""
    file, victim = outbound(tmp_path / "a.dcm"), tmp_path / "database"
    victim.write_bytes(b"precious")
    target = place(share, file)
    target.parent.mkdir(parents=True)
    target.with_name(f".{target.stem}.part").symlink_to(victim)
    assert [answer.accepted for answer in write(share, file)] == [True]
    assert victim.read_bytes() == b"precious"
    assert target.read_bytes() == file.path.read_bytes()
    assert not target.is_symlink()


def test_a_link_in_the_place_of_a_study_is_told_and_not_followed(share: FolderPeer, tmp_path: Path) -> None:
    file, elsewhere = outbound(tmp_path / "a.dcm"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    place(share, file).parent.parent.symlink_to(elsewhere)
    (answer,) = write(share, file)
    assert (answer.disposition, answer.reason) == (Disposition.PERMANENT, "a link has the name of its folder")
    assert list(elsewhere.rglob("*.dcm")) == []


@pytest.mark.parametrize(
    ("path", "disposition"),
    [("/proc/self/mem", Disposition.TRANSIENT), ("/nowhere/at/all", Disposition.PERMANENT)],
    ids=["disk fault", "gone"],
)
def test_a_result_file_that_cannot_be_read_fails_by_itself(
    share: FolderPeer, tmp_path: Path, path: str, disposition: Disposition
) -> None:
    """A fault of our disk may pass, a file that is gone does not come back; the others are written."""
    make_file(tmp_path / "a.dcm")
    sound = read_outbound(tmp_path / "a.dcm")
    assert isinstance(sound, OutboundFile)
    bad = OutboundFile(Path(path), sound.SOPClassUID, "2.25.7", sound.TransferSyntaxUID)
    answers = list(write_files(share, [bad, sound]))
    assert [answer.disposition for answer in answers] == [disposition, Disposition.STORED]
    assert answers[0].reason.startswith("the file cannot be read")

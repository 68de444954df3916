"""Files: complete or absent, pixels copied as they lie, harmful ones cost one child and are held back."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit

from dicomnode.deid.files import FileOutcome, deidentify_file, planned
from dicomnode.deid.parse import TreeLimits
from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.profile import Profile
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.sandboxed import SandboxedFiles, Task
from dicomnode.deid.tree import Span
from dicomnode.errors import Transient
from dicomnode.sandbox import SandboxLimits
from tests.bombs import BOMBS
from tests.unit.deid_objects import KEY, deidentifier, file_of, image, transformed

_MIB = 1 << 20


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(KEY.secret)
    path.chmod(0o600)
    return path


def _large(**more: object) -> pydicom.FileDataset:
    return image(Rows=512, Columns=512, PixelData=os.urandom(512 * 512 * 2), **more)


def test_a_file_is_what_the_engine_makes_of_it(tmp_path: Path) -> None:
    """D13: header made new, pixels copied from the source, digests of both files told, nothing else left behind."""
    source, target = tmp_path / "in.dcm", tmp_path / "out" / "new.dcm"
    source.write_bytes(file_of(_large()))
    outcome = deidentify_file(source, target, deidentifier())
    assert target.read_bytes() == transformed(source.read_bytes())[0]
    assert outcome.before == hashlib.sha256(source.read_bytes()).hexdigest()
    assert outcome.after == hashlib.sha256(target.read_bytes()).hexdigest()
    assert outcome.size == target.stat().st_size
    assert list(target.parent.iterdir()) == [target]


def test_a_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D13: content, then the name, then the folder: power may go at any moment (as R1)."""
    source, target = tmp_path / "in.dcm", tmp_path / "out" / "new.dcm"
    source.write_bytes(file_of(image()))
    seen: list[tuple[bool, bool]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        sync(descriptor)
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), target.exists()))

    monkeypatch.setattr(os, "fsync", watched)
    deidentify_file(source, target, deidentifier())
    assert seen == [(False, False), (True, True)]


def test_long_values_are_not_read_into_memory(tmp_path: Path) -> None:
    """D13: pixels are told as a place in the file, whatever their size and encoding."""
    path = tmp_path / "in.dcm"
    for dataset in (_large(), _large(syntax=JPEGBaseline8Bit)):
        if dataset.file_meta.TransferSyntaxUID == JPEGBaseline8Bit:
            dataset.PixelData = pydicom.encaps.encapsulate([bytes(300_000)])
            dataset["PixelData"].VR = "OB"
            dataset["PixelData"].is_undefined_length = True
        path.write_bytes(file_of(dataset))
        with planned(path, deidentifier()) as (new, _, inside):
            pieces = list(new.pieces())
        assert inside
        assert [type(piece) for piece in pieces].count(Span) == 1
        assert sum(len(piece) for piece in pieces if isinstance(piece, bytes)) < 10_000


def test_nothing_is_left_when_the_object_is_held_back(tmp_path: Path) -> None:
    """D21: no file and no unfinished one; nor when what must be recorded first cannot be."""
    source, target = tmp_path / "in.dcm", tmp_path / "out" / "new.dcm"
    source.write_bytes(file_of(image(BurnedInAnnotation="YES")))
    with pytest.raises(Quarantined):
        deidentify_file(source, target, deidentifier())
    source.write_bytes(file_of(image()))

    def full(_: FileOutcome) -> None:
        assert not target.exists()
        raise Transient("vault: full")

    with pytest.raises(Transient):
        deidentify_file(source, target, deidentifier(), before_release=full)
    assert not target.exists()
    assert not list((tmp_path / "out").iterdir())


def test_a_child_makes_the_same_file(tmp_path: Path, key_file: Path) -> None:
    """D13, D15: through child processes, by several threads at once, byte for byte what the engine makes."""
    sources = []
    for number in range(6):
        source = tmp_path / f"{number}.dcm"
        deflated = {"syntax": DeflatedExplicitVRLittleEndian} if number == 5 else {}
        source.write_bytes(file_of(_large(SOPInstanceUID=f"1.2.3.{number}", **deflated)))
        sources.append(source)
    made: dict[Path, bytes] = {}
    with SandboxedFiles(Task(Profile(), key_file), jobs=2) as files:

        def work(source: Path) -> None:
            target = tmp_path / "out" / source.name
            files.deidentify(source, lambda _: target, tmp_path / "unfinished")
            made[source] = target.read_bytes()

        threads = [threading.Thread(target=work, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for source in sources:
        assert made[source] == transformed(source.read_bytes())[0]
    assert not list((tmp_path / "unfinished").iterdir())


def test_harmful_files_cost_one_child_and_are_held_back(tmp_path: Path, key_file: Path) -> None:
    """D3: each bomb is held back or de-identified within the limits, and the sound file behind it is served."""
    limits = SandboxLimits(memory_bytes=256 * _MIB, cpu_s=2, wall_s=60)
    sound = tmp_path / "sound.dcm"
    sound.write_bytes(file_of(image()))
    reasons = {}
    with SandboxedFiles(Task(Profile(), key_file), limits) as files:
        for name, make in BOMBS.items():
            if name.startswith("S11"):
                continue  # harmful to decoders, and nothing is decoded here
            path = tmp_path / "bomb.dcm"
            path.write_bytes(make())
            try:
                files.deidentify(path, lambda _: tmp_path / "out.dcm", tmp_path / "unfinished")
            except Quarantined as refusal:
                reasons[name] = refusal.reason
        files.deidentify(sound, lambda _: tmp_path / "out.dcm", tmp_path / "unfinished")
    assert (tmp_path / "out.dcm").read_bytes() == transformed(sound.read_bytes())[0]
    assert set(reasons.values()) <= {Reason.MALFORMED, Reason.TOO_DEEP, Reason.LIMIT, Reason.READER}
    assert len(reasons) > 5


def test_the_number_of_elements_is_limited() -> None:
    """D3: a sequence of endless items ends with a reason."""
    content = file_of(image())
    with pytest.raises(Quarantined) as refusal:
        parse_part10(content, TreeLimits(elements=20))
    assert refusal.value.reason is Reason.LIMIT


def test_a_deflated_file_stays_deflated() -> None:
    """D13: the data set is packed again and reads the same; a damaged stream is held back."""
    content = file_of(_large(syntax=DeflatedExplicitVRLittleEndian))
    raw, _ = transformed(content)
    new = pydicom.dcmread(io.BytesIO(raw))
    assert new.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert new.PixelData == pydicom.dcmread(io.BytesIO(content)).PixelData
    with pytest.raises(Quarantined):
        transformed(content[:400] + b"\xff" * 200 + content[600:])

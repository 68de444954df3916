"""One multi-frame Instance of a gigabyte: its sender makes it frame by frame, and its receiver has to keep pace so."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from tests.bench.loads import data_set_of
from tests.bench.receivers import NodeReceiver
from tests.bench.watch import Watch, memory
from tests.raw_scu import EXPLICIT, SUCCESS, Context, RawAssociation

MULTIFRAME_WORD_SC = "1.2.840.10008.5.1.4.1.1.7.3"
SIZE = 1024
FRAME_BYTES = SIZE * SIZE * 2
_PIXELS = struct.pack("<HH2sH", 0x7FE0, 0x0010, b"OW", 0)


@dataclass(frozen=True, slots=True)
class Giant:
    """``grown``: memory of the node's processes at its greatest, less that before, in bytes.

    ``intact``: what is on disk is, byte for byte, what was sent.
    """

    size_bytes: int
    seconds: float
    memory_before: int
    grown: int
    cpu_s: float
    intact: bool


def send_giant(receiver: NodeReceiver, frames: int, calling: str = "SCANNER") -> Giant:
    """Send one Instance of ``frames`` frames of 2 MiB. Raises RuntimeError when it is not acknowledged.

    A small one goes first, so that what is loaded on first use does not count.
    """
    context = Context(MULTIFRAME_WORD_SC, EXPLICIT)
    _send(receiver, context, calling, 1, hashlib.sha256())
    digest, before = hashlib.sha256(), memory(receiver.pid)
    with Watch(receiver.pid) as watch:
        started = time.perf_counter()
        size = _send(receiver, context, calling, frames, digest)
        seconds = time.perf_counter() - started
    intact = digest.hexdigest() in receiver.digests()
    return Giant(size, seconds, before, watch.peak - before, watch.cpu, intact)


def _send(receiver: NodeReceiver, context: Context, calling: str, frames: int, digest: hashlib._Hash) -> int:
    instance = f"2.25.4{time.time_ns()}"
    size = 0

    def pieces() -> Iterator[bytes]:
        nonlocal size
        for piece in _data_set(instance, frames):
            digest.update(piece)
            size += len(piece)
            yield piece

    with RawAssociation(receiver.port, receiver.ae_title, calling, [context], timeout_s=300.0) as association:
        status = association.store_stream(context, instance, pieces())
        association.release()
    if status != SUCCESS:
        raise RuntimeError(f"an Instance of {size} bytes was answered 0x{status:04X}")
    return size


def _data_set(instance: str, frames: int) -> Iterator[bytes]:
    yield _header(instance, frames) + _PIXELS + struct.pack("<I", frames * FRAME_BYTES)
    noise = np.random.default_rng(7).integers(0, 4096, SIZE * SIZE, dtype=np.uint16)
    for frame in range(frames):
        noise[0] = frame % 4096
        yield noise.astype("<u2").tobytes()


def _header(instance: str, frames: int) -> bytes:
    """All before the pixels, in Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(MULTIFRAME_WORD_SC)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(instance)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MULTIFRAME_WORD_SC, instance, "OT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{instance}.1", f"{instance}.2"
    dataset.PatientName, dataset.PatientID = "BENCH^SYNTHETIC", "BENCH"
    dataset.StudyDate, dataset.StudyTime, dataset.ConversionType = "20250102", "101500", "WSD"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames, SIZE, SIZE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.FrameTime = "40"
    dataset.FrameIncrementPointer = 0x00181063
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return data_set_of(buffer.getvalue())

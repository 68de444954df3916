"""Files on their way out of the trust zone: de-identified, or held back with a reason."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicomnode.deid.engine import Deidentifier
from dicomnode.deid.files import deidentify_file
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.policy import policy_for
from dicomnode.deid.profile import load_profile, shipped
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.refusal import Quarantined
from tests.fuzz.pure import DICOM_WORDS
from tests.fuzz.seeds import files, whole_images
from tests.fuzz.target import Target

PREFIX = "ANON-"


class Leaving(Target):
    """What leaves is whole, marked, without private elements and under a pseudonym; all else is held back."""

    name = "deid"
    words = (*DICOM_WORDS, b"DICM", b"\x09\x00\x10\x00LO", b"\x10\x00\x20\x00LO", b"\x00\x60\x00\x30OW", b"19000101")

    def __init__(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="dicomnode-fuzz-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._source, self._target = folder / "source", folder / "target"
        key = ProjectKey.create(folder / "key")
        names, profiles = Pseudonyms(key, prefix=PREFIX), [load_profile(name) for name in shipped()]
        self._profiles = [Deidentifier(profile, names, policy_for(profile)) for profile in profiles]

    def seeds(self) -> Sequence[bytes]:
        """Images with their pixels, and data sets of several encodings."""
        return [*whole_images(), *files()]

    def check(self, data: bytes) -> None:
        """Each shipped profile."""
        self._source.write_bytes(data)
        for deidentifier in self._profiles:
            self._target.unlink(missing_ok=True)
            with suppress(Quarantined):
                deidentify_file(self._source, self._target, deidentifier)
                self._judge(pydicom.dcmread(self._target))
                continue
            assert not self._target.exists(), "what is held back has left"

    def _judge(self, left: Dataset) -> None:
        assert left.PatientIdentityRemoved == "YES"
        assert left.PatientID.startswith(PREFIX)
        assert left.SOPInstanceUID == left.file_meta.MediaStorageSOPInstanceUID
        assert not any(tag.is_private for tag in _tags(left)), "a private element has left"


def _tags(dataset: Dataset) -> Iterator[BaseTag]:
    for tag in list(dataset.keys()):
        yield tag
        with suppress(AttributeError):  # US or SS, and no Pixel Representation to tell which: as in the source
            if dataset[tag].VR == "SQ":
                for item in dataset[tag].value:
                    yield from _tags(item)

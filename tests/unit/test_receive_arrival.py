"""What is refused before anything is written, and what is accepted in negotiation."""

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ImplicitVRLittleEndian

from dicomnode.dicom.header import ROUTING_KEYWORDS
from dicomnode.dicom.header_source import MemorySource
from dicomnode.dicom.sop_classes import CT_IMAGE, MR_IMAGE, VERIFICATION
from dicomnode.receive.arrival import RefusedInstance, StoreRequest, examine, require_plausible
from dicomnode.receive.contexts import is_storage, supported_syntaxes
from dicomnode.receive.part10 import file_head

UIDS = {
    "SOPClassUID": CT_IMAGE,
    "SOPInstanceUID": "1.2.3.4",
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.1",
}


def data_set(**values):
    dataset = Dataset()
    for keyword, value in (UIDS | {"PatientID": "P1", "Modality": "CT"} | values).items():
        if value is not None:
            setattr(dataset, keyword, value)
    buffer = BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


def asked(data, **values):
    fields = {"SOPClassUID": CT_IMAGE, "SOPInstanceUID": "1.2.3.4", "abstract_syntax": CT_IMAGE} | values
    return StoreRequest(TransferSyntaxUID=ImplicitVRLittleEndian, **fields), data


def examined_of(what, keywords=ROUTING_KEYWORDS):
    """As reception does it: the command alone first, then the data set behind what the node wrote before it."""
    request, data = what
    require_plausible(request)
    return examine(request, MemorySource(b"head" + data), 4, keywords, inflated_bytes=1000)


def test_a_matching_data_set_is_examined():
    examined = examined_of(asked(data_set()), ROUTING_KEYWORDS)
    assert examined.reference.SeriesInstanceUID == "1.2.3.1"
    assert (examined.text("PatientID"), examined.text("Modality"), examined.text("StudyDate")) == ("P1", "CT", "")


@pytest.mark.parametrize(
    ("request_of", "status"),
    [
        (lambda: asked(data_set(), SOPInstanceUID="1.2.3.5"), 0xA900),
        (lambda: asked(data_set(), SOPClassUID=MR_IMAGE), 0xA900),
        (lambda: asked(data_set(), abstract_syntax=MR_IMAGE), 0xA900),
        (lambda: asked(data_set(SOPInstanceUID=None)), 0xC000),
        (lambda: asked(data_set(StudyInstanceUID=None)), 0xC000),
        (lambda: asked(data_set(SeriesInstanceUID=None)), 0xC000),
        (lambda: asked(data_set()[:61]), 0xC000),
        (lambda: asked(b""), 0xC000),
    ],
    ids=["other uid", "other class", "other context", "no uid", "no study", "no series", "truncated", "empty"],
)
def test_what_cannot_be_kept_is_refused_with_its_status(request_of, status):
    with pytest.raises(RefusedInstance) as refusal:
        examined_of(request_of(), ROUTING_KEYWORDS)
    assert refusal.value.status == status


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2.3\\1.2.4", "1..2", "1." + "2" * 64])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.filterwarnings("ignore:The value length")
def test_s7_a_uid_that_is_none_is_refused(uid):
    with pytest.raises(RefusedInstance) as refusal:
        examined_of(asked(data_set(SOPInstanceUID=uid), SOPInstanceUID=uid), ROUTING_KEYWORDS)
    assert refusal.value.status == 0xC000
    assert uid not in str(refusal.value)


def test_the_transfer_syntax_can_be_routed_on():
    examined = examined_of(asked(data_set()), ROUTING_KEYWORDS | {"TransferSyntaxUID"})
    assert examined.text("TransferSyntaxUID") == ImplicitVRLittleEndian


def test_the_file_head_is_a_valid_one_with_a_zero_preamble():
    data = file_head(CT_IMAGE, "1.2.3.4", ImplicitVRLittleEndian, "CT1") + data_set()
    dataset = dcmread(BytesIO(data))
    assert data[:128] == bytes(128)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == "1.2.3.4"
    assert dataset.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert dataset.file_meta.SourceApplicationEntityTitle == "CT1"
    assert dataset.file_meta.FileMetaInformationGroupLength == len(data) - len(data_set()) - 128 - 4 - 12


def test_private_storage_is_taken_and_other_services_are_not():
    find, private = "1.2.840.10008.5.1.4.1.2.2.1", "1.3.46.670589.5.0.1"
    supported = [uid for uid in (VERIFICATION, CT_IMAGE, find, private) if supported_syntaxes(uid)]
    assert supported == [VERIFICATION, CT_IMAGE, private]
    assert (is_storage(private), is_storage(find), is_storage(VERIFICATION)) == (True, False, False)


@pytest.mark.parametrize("beyond", [2, 2**31])
def test_pixel_data_that_end_beyond_the_data_set_are_refused(beyond):
    pixels = (0x7FE0).to_bytes(2, "little") + (0x0010).to_bytes(2, "little") + (64 + beyond).to_bytes(4, "little")
    with pytest.raises(RefusedInstance) as refusal:
        examined_of(asked(data_set() + pixels + bytes(64)), ROUTING_KEYWORDS)
    assert refusal.value.status == 0xC000

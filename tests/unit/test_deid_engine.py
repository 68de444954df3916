"""The engine element by element: each promise of the specification with sentinels of its own."""

from __future__ import annotations

import io
import struct
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from dicomnode.deid.part10 import parse_part10
from dicomnode.deid.refusal import Quarantined, Reason
from tests.unit.deid_objects import (
    PIXELS,
    PSEUDONYMS,
    ROOT,
    code,
    deidentifier,
    elements,
    file_of,
    image,
    item,
    nested,
    new_of,
    transformed,
)

FORMS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def _inflated(content: bytes) -> bytes:
    """The data set of a file in the clear, whatever its transfer syntax."""
    part = parse_part10(content)
    return content if part.in_file or part.source.data is content else bytes(part.source.data)


def _reason(content: bytes) -> Reason:
    with pytest.raises(Quarantined) as refusal:
        transformed(content)
    return refusal.value.reason


# -- D2, D3 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", FORMS)
def test_nothing_of_a_nested_name_survives_in_any_encoding(syntax: str) -> None:
    """D3: nine sequences deep, in every encoding, names, dates, UIDs and texts are treated as at the top."""
    inner = item(
        PatientName="VDEEPNAMEV^A", PatientBirthDate="19330303", PatientComments="VDEEPTEXTV",
        ReferencedSOPInstanceUID="1.2.3.33333", InstitutionName="VDEEPPLACEV",
    )  # fmt: skip
    for _ in range(8):
        inner = item(FrameContentSequence=Sequence([inner]))
    dataset = image(syntax=syntax, PerFrameFunctionalGroupsSequence=nested(inner))
    raw, _ = transformed(file_of(dataset))
    plain = _inflated(raw)
    assert pydicom.dcmread(io.BytesIO(raw)).file_meta.TransferSyntaxUID == syntax
    for sentinel in (b"VDEEP", b"19330303", b"1.2.3.33333"):
        assert sentinel not in plain


def test_depth_is_limited() -> None:
    """D3: sequences nested deeper than 64 are no reason to fail but to hold the object back."""
    for depth, reason in ((60, None), (70, Reason.TOO_DEEP)):
        inner = item(SeriesDescription="x")
        for _ in range(depth):
            inner = item(FrameContentSequence=Sequence([inner]))
        content = file_of(image(PerFrameFunctionalGroupsSequence=Sequence([inner])))
        if reason:
            assert _reason(content) is reason
        else:
            assert transformed(content)[1].actions["X"]


def test_sequences_by_their_code() -> None:
    """D3: X removes a sequence, Z leaves no items, D replaces leaf values, X/Z/U* maps the references."""
    dataset = image(
        OriginalAttributesSequence=Sequence([item(ModifyingSystem="VMODV")]),
        VerifyingObserverSequence=Sequence([item(VerifyingObserverName="VOBSV^A", VerifyingOrganization="VORGV")]),
        SourceImageSequence=Sequence([item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID="1.2.77")]),
    )
    dataset.add(DataElement(0x00400610, "SQ", Sequence([item(CodeMeaning="VSPECV")])))
    raw, _ = transformed(file_of(dataset))
    new = pydicom.dcmread(io.BytesIO(raw))
    assert not [mark for mark in (b"VMODV", b"VOBSV", b"VORGV", b"VSPECV") if mark in raw]
    assert "OriginalAttributesSequence" not in new
    assert len(new[0x00400610].value) == 0
    assert new.VerifyingObserverSequence[0].VerifyingObserverName == "REMOVED"
    reference = new.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == PSEUDONYMS.uid("1.2.77")
    assert reference.ReferencedSOPClassUID == CTImageStorage


def test_unknown_tags_go_and_known_ones_stay() -> None:
    """D2: an element of an even group that no dictionary has is removed at every depth; Manufacturer stays."""
    dataset = image(PerFrameFunctionalGroupsSequence=nested(item()))
    dataset.add(DataElement(0x00089998, "LO", "VUNKV1"))
    dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0].add(DataElement(0x00189994, "LO", "VUNKV2"))
    raw, _ = transformed(file_of(dataset))
    assert b"VUNKV" not in raw
    assert pydicom.dcmread(io.BytesIO(raw)).Manufacturer == "ACME"


def test_names_and_references_without_a_row_do_not_stay() -> None:
    """D2, D16: a person name or a UID reference that the table forgot is not kept as it is."""
    dataset = image(DocumentAuthorTrial="VAUTHORV^A", TargetFrameOfReferenceUID="1.2.3.888")
    new = new_of(dataset)
    assert not new.DocumentAuthorTrial
    assert new.TargetFrameOfReferenceUID == PSEUDONYMS.uid("1.2.3.888")


# -- D5 ----------------------------------------------------------------------------------------------------------------


def test_dummies_in_a_replaced_document_are_valid() -> None:
    """D5: codes become one code meaning removed, coded attributes keep a term, numbers are 0, references follow."""
    node = item(
        RelationshipType="CONTAINS", ValueType="NUM", ConceptNameCodeSequence=code("1", "99X", "VCONCEPTV"),
        MeasuredValueSequence=Sequence(
            [item(NumericValue="12345.5", MeasurementUnitsCodeSequence=code("mm", "UCUM", "millimeter"))]
        ),
    )  # fmt: skip
    new = new_of(image(ContentSequence=Sequence([node])))
    found = new.ContentSequence[0]
    assert (found.ValueType, found.RelationshipType) == ("NUM", "CONTAINS")
    assert found.ConceptNameCodeSequence[0].CodeMeaning == "removed"
    assert len(found.ConceptNameCodeSequence) == 1
    said = list(found.ConceptNameCodeSequence[0])
    assert [one.keyword for one in said] == ["CodeValue", "CodingSchemeDesignator", "CodeMeaning"]
    assert found.MeasuredValueSequence[0].NumericValue == 0


def test_a_coded_attribute_becomes_one_of_its_terms() -> None:
    """D5: Reason for the Attribute Modification is COERCE or CORRECT, whatever stood there."""
    dataset = image()
    dataset.add(DataElement(0x04000565, "CS", "VFREEV"))
    assert new_of(dataset)[0x04000565].value == "COERCE"


def test_drawings_keep_their_shape() -> None:
    """D5: as many numbers as before, all 0, and the number of points is right."""
    drawn = item(
        GraphicAnnotationUnits="PIXEL", GraphicDimensions=2, NumberOfGraphicPoints=2, GraphicType="POLYLINE",
        GraphicData=[1.5, 2.5, 3.5, 4.5], GraphicFilled="N",
    )  # fmt: skip
    text = item(UnformattedTextValue="VANNOTEV", BoundingBoxAnnotationUnits="PIXEL")
    shapes, texts = Sequence([drawn]), Sequence([text])
    annotation = item(GraphicLayer="LAYER", GraphicObjectSequence=shapes, TextObjectSequence=texts)
    dataset = image(GraphicAnnotationSequence=Sequence([annotation]))
    new = new_of(dataset).GraphicAnnotationSequence[0]
    shape = new.GraphicObjectSequence[0]
    assert list(shape.GraphicData) == [0, 0, 0, 0]
    assert (shape.NumberOfGraphicPoints, shape.GraphicType, new.GraphicLayer) == (2, "POLYLINE", "LAYER")
    assert new.TextObjectSequence[0].UnformattedTextValue == "REMOVED"
    kept = new_of(dataset, "clean_graphics").GraphicAnnotationSequence[0]
    assert list(kept.GraphicObjectSequence[0].GraphicData) == [1.5, 2.5, 3.5, 4.5]
    assert kept.TextObjectSequence[0].UnformattedTextValue == "REMOVED"


# -- D6, D7, D8, D10 ---------------------------------------------------------------------------------------------------

SAFE = frozenset({(0x0019, "VACME HEADER", 0x0C), (0x0019, "VACME HEADER", 0x0D), (0x0019, "VACME HEADER", 0x0E)})


def _with_private(dataset: Dataset) -> Dataset:
    block = dataset.private_block(0x0019, "VACME HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0D, "PN", "VPRIVNAMEV^A")
    block.add_new(0x0E, "UI", "1.2.3.999")
    block.add_new(0x0F, "LO", "VPRIVTEXTV")
    dataset.private_block(0x0021, "VOTHER", create=True).add_new(0x0C, "LO", "VPRIVOTHERV")
    return dataset


@pytest.mark.parametrize("syntax", FORMS[:2])
def test_private_elements_go_with_their_creators(syntax: str) -> None:
    """D6: at every level, inside private sequences too, nothing of an odd group is left."""
    inner = _with_private(item())
    dataset = _with_private(image(syntax=syntax, PerFrameFunctionalGroupsSequence=nested(inner)))
    dataset.private_block(0x0029, "VSEQ", create=True).add_new(1, "SQ", Sequence([item(PatientName="VPRIVSEQV^A")]))
    raw, _ = transformed(file_of(dataset))
    assert b"VPRIV" not in raw
    assert b"VACME" not in raw
    assert not [e for _, e in elements(pydicom.dcmread(io.BytesIO(raw))) if e.tag.is_private]


def test_the_safe_list_keeps_what_it_names() -> None:
    """D6: (creator, element) on the list stay with their creator while the option is on; names go all the same."""
    content = file_of(_with_private(image(PerFrameFunctionalGroupsSequence=nested(_with_private(item())))))
    raw, applied = transformed(content, "retain_safe_private", safe_private=SAFE)
    new = pydicom.dcmread(io.BytesIO(raw))
    for place in (new, new.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]):
        block = place.private_block(0x0019, "VACME HEADER")
        assert block[0x0C].value == 1000
        assert block[0x0E].value == PSEUDONYMS.uid("1.2.3.999")
    assert b"VPRIV" not in raw
    assert b"VOTHER" not in raw
    assert "113111" in applied.codes
    assert b"VACME" not in transformed(content, safe_private=SAFE)[0]


def _un(tag: int, body: bytes, *, undefined: bool = False) -> bytes:
    """An explicit element of VR UN."""
    length = 0xFFFFFFFF if undefined else len(body)
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b""
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"UN", 0, length) + body + end


def _implicit_item(dataset: Dataset) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = buffer.is_implicit_VR = True
    write_dataset(buffer, dataset)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(buffer.getvalue())) + buffer.getvalue()


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("tag", [0x00540016, 0x00400275, 0x00541999])
def test_sequences_that_came_as_un_are_looked_into(tag: int, *, undefined: bool) -> None:
    """D7: a kept, a removed and an unknown sequence, encoded as UN, leave nothing of the name inside."""
    body = _implicit_item(item(PatientName="VUNSEQV^A", RadionuclideTotalDose="370"))
    content = file_of(image())
    at = content.index(struct.pack("<HH", 0x7FE0, 0x10) + b"OW")
    raw, _ = transformed(content[:at] + _un(tag, body, undefined=undefined) + content[at:])
    assert b"VUNSEQV" not in raw
    new = pydicom.dcmread(io.BytesIO(raw))
    assert (tag in new) == (tag == 0x00540016)
    if tag in new:
        assert new[tag].value[0].RadionuclideTotalDose == 370


def test_un_values_follow_their_tag() -> None:
    """D7: a name as UN is treated as a name, a known sequence that cannot be read as UN goes."""
    content = file_of(image(PatientName=None))
    at = content.index(struct.pack("<HH", 0x0010, 0x0020))
    broken = b"\xfe\xff\x00\xe0\xff\x00\x00\x00VBROKENV"
    raw, applied = transformed(content[:at] + _un(0x00100010, b"VUNNAMEV") + content[at:])
    assert b"VUNNAMEV" not in raw
    at = content.index(struct.pack("<HH", 0x7FE0, 0x10) + b"OW")
    raw, applied = transformed(content[:at] + _un(0x00540016, broken) + content[at:])
    assert b"VBROKENV" not in raw
    assert applied.notes["sequences that cannot be read"] == 1


def _number(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


@pytest.mark.parametrize(
    "value", [b"\0\0VSWALLOWEDV", b"\0\0VSWALLOWED"], ids=["more values than it may have", "no whole number of values"]
)
@pytest.mark.parametrize("vr", [b"US", b"UN"])
def test_a_number_that_has_swallowed_other_elements_does_not_leave(vr: bytes, value: bytes) -> None:
    """D3: a wrong length makes what stands behind a kept number its value, names too."""
    content = file_of(image())
    at = content.index(struct.pack("<HH", 0x0028, 0x0103))
    number = _un(0x00280103, value) if vr == b"UN" else _number(0x00280103, vr, value)
    assert _reason(content[:at] + number + content[at + 10 :]) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("tag", "vr"), [(0x00080060, b"CS"), (0x00180015, b"CS"), (0x00180050, b"DS"), (0x00080070, b"LO")]
)
def test_a_text_that_has_swallowed_other_elements_does_not_leave(tag: int, vr: bytes) -> None:
    """D3: the name is no element any more then, and no rule of its own meets it."""
    content = file_of(image())
    content = content.replace(_number(0x00080060, b"CS", b"CT"), b"")
    begin, end = (content.index(struct.pack("<HH", *place)) for place in ((0x0010, 0x0010), (0x0010, 0x0020)))
    name = content[begin:end]
    assert b"PN" in name
    at = content.index(struct.pack("<HH", 0x0008, 0x0016))
    for swallower in (_number(tag, vr, b"CT" + name), _un(tag, b"CT" + name)):
        assert _reason(content[:at] + swallower + content[at:begin] + content[end:]) is Reason.MALFORMED


def test_texts_padded_with_zeros_stay() -> None:
    """Devices pad with zeros what is to be padded with blanks, each value of several too."""
    content = file_of(image())
    at = content.index(struct.pack("<HH", 0x0020, 0x000D))
    padded = _number(0x00180015, b"CS", b"CHEST\0\\HEAD\0\0\0")
    raw, _ = transformed(content[:at] + padded + content[at:])
    assert padded in raw


def test_numbers_with_as_many_values_as_they_may_have_stay_as_they_are() -> None:
    """D13: one, three, and any number of them."""
    content = file_of(image())
    at = content.index(struct.pack("<HH", 0x7FE0, 0x10) + b"OW")
    numbers = _number(0x00281101, b"US", b"\1\0\2\0\3\0") + _number(0x00281201, b"US", bytes(range(200)))
    raw, _ = transformed(content[:at] + numbers + content[at:])
    assert numbers in raw


def test_what_came_without_a_vr_in_an_explicit_file_is_written_with_one() -> None:
    """PS3.5 7.1: one encoding in one file, or a reader that looks at the first element takes all for implicit. A text
    that is too long for its VR is UN (6.2.2)."""
    whole = image()
    implicit = _implicit_item(whole)[8:]
    comments = struct.pack("<HHI", 0x0018, 0x1191, 70_000) + b"Z" * 70_000
    at = implicit.index(struct.pack("<HH", 0x0020, 0x000D))
    content = file_of(whole)
    begin = content.index(struct.pack("<HH", 0x0008, 0x0016))
    first = struct.pack("<HH2sH", 0x0008, 0x0005, b"CS", 10) + b"ISO_IR 100"
    raw, applied = transformed(content[:begin] + first + implicit[:at] + comments + implicit[at:])
    new = pydicom.dcmread(io.BytesIO(raw))
    assert new.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (new.PatientIdentityRemoved, new.PatientID) == ("YES", applied.patient)
    assert (new["PixelData"].VR, new.PixelData) == ("OW", whole.PixelData)
    assert [element for _, element in elements(new) if element.tag == 0x00181191 and len(element.value) == 70_000]


@pytest.mark.parametrize("options", [(), ("clean_graphics",)])
def test_overlays_and_curves_go_as_a_whole(options: tuple[str, ...]) -> None:
    """D8: every element of every repeating group, odd numbers and nested ones included."""
    dataset = image(PerFrameFunctionalGroupsSequence=nested(item()))
    inner = dataset.PerFrameFunctionalGroupsSequence[0].FrameContentSequence[0]
    for group in (0x5000, 0x501E, 0x5002, 0x6000, 0x601E, 0x60FE):
        for place in (dataset, inner):
            place.add(DataElement((group, 0x22), "LO", f"VGR{group:X}V"))
            place.add(DataElement((group, 0x1500), "LO", f"VGR{group:X}LV"))
            place.add(DataElement((group, 0x3000), "OW", b"VGRDATAV"))
    raw, _ = transformed(file_of(dataset), *options)
    assert b"VGR" not in raw
    assert not [e for _, e in elements(pydicom.dcmread(io.BytesIO(raw))) if e.tag.group & 0xFF00 in (0x5000, 0x6000)]


def test_icons_signatures_and_padding_go() -> None:
    """D9, D10: icons with their pixels, digital signatures and trailing padding, at every level."""
    icon = item(Rows=1, Columns=16, BitsAllocated=8, PixelData=b"VICONPIXELSVVVVV")
    signature = item(MACIDNumber=1, Signature=b"VSIGNV", CertificateOfSigner=b"VCERTV")
    inner = item(IconImageSequence=Sequence([icon]))
    dataset = image(
        IconImageSequence=Sequence([icon]), DigitalSignaturesSequence=Sequence([signature]),
        PerFrameFunctionalGroupsSequence=nested(inner),
    )  # fmt: skip
    dataset.add(DataElement(0xFFFCFFFC, "OB", b"VPADDINGV "))
    raw, _ = transformed(file_of(dataset))
    assert not [mark for mark in (b"VICON", b"VSIGN", b"VCERT", b"VPADD") if mark in raw]


def test_pixels_inside_kept_sequences_go() -> None:
    """D10, D21: a picture that lies deeper than the gate looks is not passed on unseen."""
    inner = item(Rows=1, Columns=16, BitsAllocated=8, PixelData=b"VHIDDENPIXELSVVV")
    raw, _ = transformed(file_of(image(PerFrameFunctionalGroupsSequence=nested(inner))))
    assert b"VHIDDEN" not in raw


# -- D9 ----------------------------------------------------------------------------------------------------------------


def test_file_meta_is_made_new() -> None:
    """D9: zero preamble, five elements of ours, Media Storage SOP Instance UID that of the data set."""
    dataset = image()
    meta = dataset.file_meta
    meta.SourceApplicationEntityTitle, meta.SendingApplicationEntityTitle = "VSRCV", "VSENDV"
    meta.PrivateInformationCreatorUID, meta.PrivateInformation = "1.2.3.4.5.6.7", b"VMETAPRIVV"
    meta.ImplementationVersionName = "VIMPLV"
    dataset.preamble = b"VPREAMBLEV".ljust(128, b"\1")
    raw, _ = transformed(file_of(dataset))
    new = pydicom.dcmread(io.BytesIO(raw))
    assert raw[:128] == bytes(128)
    for mark in (b"VSRCV", b"VSENDV", b"1.2.3.4.5.6.7", b"VMETAPRIVV", b"VIMPLV"):
        assert mark not in raw
    assert new.file_meta.MediaStorageSOPInstanceUID == new.SOPInstanceUID
    assert new.file_meta.MediaStorageSOPClassUID == new.SOPClassUID
    length = new.file_meta.FileMetaInformationGroupLength
    assert raw[132 + 12 + length :].startswith(b"\x08\x00")


def test_group_2_elements_inside_the_data_set_go() -> None:
    """D9: file meta and command elements where none belong are no way out."""
    content = file_of(image())
    at = content.index(struct.pack("<HH", 0x0008, 0x0005))
    stray = struct.pack("<HH2sH", 0x0002, 0x0016, b"AE", 8) + b"VSTRAYV "
    stray = struct.pack("<HH2sH", 0x0000, 0x0600, b"AE", 8) + b"VCOMMAND" + stray
    end = len(content)
    raw, _ = transformed(content[:end] + stray)
    assert b"VSTRAYV" not in raw
    assert b"VCOMMAND" not in raw
    assert at


# -- D11 ---------------------------------------------------------------------------------------------------------------

NAMES = {
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", ["山田".encode("iso2022_jp")[3:-3]]),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", ["길동".encode("euc_kr")]),
    "chinese": ("GB18030", "Zhang^San=张^三丰=", ["三丰".encode("gb18030")]),
    "unicode": ("ISO_IR 192", "Wang^XiaoDong=王^小東=", ["小東".encode()]),
    "latin": ("ISO_IR 100", "Müßiggang^Jörg", ["Müßiggang".encode("latin-1")]),
    "cyrillic": ("ISO_IR 144", "Люкceмбypг", ["Люк".encode("iso8859_5")]),
}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_names_in_any_character_set_leave_nothing(name: str) -> None:
    """D11: no bytes of a name in its own code, at the top or nested, and the rest is readable in the set named."""
    charset, person, needles = NAMES[name]
    inner = item(PatientName=person, OperatorsName=person)
    dataset = image(
        SpecificCharacterSet=charset, PatientName=person, StudyDescription=person.split("=")[0],
        PerFrameFunctionalGroupsSequence=nested(inner),
    )  # fmt: skip
    raw, _ = transformed(file_of(dataset), "clean_descriptors")
    assert not [needle for needle in needles if needle in raw]
    assert person.split("^")[0].encode("ascii", "replace") not in raw
    assert "�" not in str(pydicom.dcmread(io.BytesIO(raw)))


def test_text_that_does_not_fit_its_set_is_made_to_fit() -> None:
    """D11: a kept value with bytes that the named set does not have keeps its ASCII, and is counted."""
    for charset, value in (("ISO_IR 192", b"AC\xe4ME"), (None, b"AC\xe4ME")):
        content = file_of(image(SpecificCharacterSet=charset, Manufacturer="AC_ME"))
        raw, applied = transformed(content.replace(b"AC_ME", value))
        assert pydicom.dcmread(io.BytesIO(raw)).Manufacturer == "AC?ME"
        assert applied.notes["text outside its character set"] == 1
    kept = image(SpecificCharacterSet="ISO_IR 100", Manufacturer="Gerät")
    assert new_of(kept).Manufacturer == "Gerät"


def test_unicode_only_when_a_text_of_the_profile_requires_it() -> None:
    """D11: a replacement that does not fit the file's set turns all of the file to ISO_IR 192, nested text too."""
    dataset = image(
        SpecificCharacterSet="ISO_IR 100", Manufacturer="Gerät", InstitutionName="VPLACEV",
        PerFrameFunctionalGroupsSequence=nested(item(ContrastBolusAgent="Größe", SpecificCharacterSet="ISO_IR 100")),
    )  # fmt: skip
    inner = ("PerFrameFunctionalGroupsSequence", "FrameContentSequence")
    for text, charset in (("Zürich", "ISO_IR 100"), ("病院", "ISO_IR 192")):
        new = new_of(dataset, "clean_descriptors", values={0x00080080: text}, words=frozenset({"größe"}))
        assert (new.SpecificCharacterSet, new.InstitutionName, new.Manufacturer) == (charset, text, "Gerät")
        assert new[inner[0]].value[0][inner[1]].value[0].ContrastBolusAgent == "Größe"


# -- D12, D18 ----------------------------------------------------------------------------------------------------------

ODD = ["UNKNOWN", "2020.01.10", "20200110-20200111", "1987", "00010101", "20201301", "20200230", "2020 110"]


@pytest.mark.parametrize("option", ["", "retain_modified_dates", "retain_full_dates"])
@pytest.mark.parametrize("value", ODD)
def test_dates_that_are_no_dates_neither_stop_nor_stay(value: str, option: str) -> None:
    """D12: they are emptied or replaced, and counted."""
    written = value.encode() + b" " * (len(value) % 2)
    content = file_of(image(StudyDate="20201231", SeriesDate="20201231"))
    content = content.replace(b"DA\x08\x0020201231", b"DA" + struct.pack("<H", len(written)) + written)
    raw, applied = transformed(content, *([option] if option else []))
    new = pydicom.dcmread(io.BytesIO(raw))
    stays = option == "retain_full_dates" and value == "00010101"
    if not stays:
        assert value.encode() not in raw
        assert not new.get("StudyDate")
    if option == "retain_modified_dates":
        assert applied.notes["dates that do not parse"] >= 1


def test_free_text_in_a_time_does_not_stay() -> None:
    """D12: also under full dates only what is a time stays."""
    content = file_of(image(StudyTime="101112")).replace(b"TM\x06\x00101112", b"TM\x06\x00VDOE V")
    assert b"VDOE" not in transformed(content, "retain_full_dates")[0]


def test_dates_go_back_by_the_days_of_the_patient() -> None:
    """D18: intervals within a patient stay, times stay, zone and fraction of a DT stay, two patients differ."""
    first = image(AcquisitionDateTime="20200110101112.25+0130", StudyDate="20200110")
    second, other = image(StudyDate="20200131"), image(PatientID="ROE-ID")
    new = [new_of(one, "retain_modified_dates") for one in (first, second, other)]
    days = [pydicom.valuerep.DA(one.StudyDate) for one in new]
    assert (days[1] - days[0]).days == 21
    assert days[2] != days[0]
    assert new[0].StudyTime == "101112"
    assert new[0].AcquisitionDateTime == days[0].strftime("%Y%m%d") + "101112.25+0130"
    assert (pydicom.valuerep.DA("20200110") - days[0]).days == PSEUDONYMS.day_shift("DOE-ID")
    assert not new[0].PatientBirthDate


def test_several_dates_in_one_element_are_all_shifted() -> None:
    """D12: what parses is shifted, each value of several."""
    dataset = image()
    dataset.add(DataElement(0x0018700C, "DA", "20200110"))
    dataset.add(DataElement(0x00181200, "DA", ["20200110", "20200112"]))
    new = new_of(dataset, "retain_modified_dates")
    days = [pydicom.valuerep.DA(value) for value in new[0x00181200].value]
    assert (days[1] - days[0]).days == 2
    assert days[0] == pydicom.valuerep.DA(new.StudyDate)


def test_calibration_dates_are_shifted_even_when_the_device_is_kept() -> None:
    """D18: with modified dates no date stays as it was: one that did would give the shift away."""
    new = new_of(image(DateOfLastCalibration="20200109"), "retain_modified_dates", "retain_device")
    assert (pydicom.valuerep.DA(new.StudyDate) - pydicom.valuerep.DA(new.DateOfLastCalibration)).days == 1
    assert new_of(image(DateOfLastCalibration="20200109"), "retain_device").DateOfLastCalibration == "20200109"


@pytest.mark.parametrize(("age", "said"), [("089Y", "089Y"), ("090Y", "090Y"), ("104Y", "090Y"), ("018M", "018M")])
def test_ages_over_89_are_capped(age: str, said: str) -> None:
    """D18: with patient characteristics kept, 104Y is told as 090Y."""
    assert new_of(image(PatientAge=age), "retain_patient_characteristics").PatientAge == said


@pytest.mark.parametrize(
    ("option", "state"),
    [("", "REMOVED"), ("retain_modified_dates", "MODIFIED"), ("retain_full_dates", "UNMODIFIED")],
)
def test_what_became_of_the_dates_is_told(option: str, state: str) -> None:
    """D18: (0028,0303) follows the option."""
    assert new_of(image(), *([option] if option else [])).LongitudinalTemporalInformationModified == state


# -- D13 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", FORMS)
def test_what_is_kept_is_unchanged_to_the_byte(syntax: str) -> None:
    """D13: pixel data, what describes it, Modality and Image Type, in every encoding."""
    dataset = image(syntax=syntax, WindowCenter=" 40.00 ", RescaleSlope="1.0000000")
    old, new = parse_part10(file_of(dataset)), parse_part10(transformed(file_of(dataset))[0])
    kept = {element.tag: element for element in new.elements}
    for element in old.elements:
        described = element.tag >> 16 == 0x28 or element.tag in (0x00080060, 0x00080008)
        if described and isinstance(element.value, bytes):
            assert kept[element.tag] == element
    assert pydicom.dcmread(io.BytesIO(transformed(file_of(dataset))[0])).PixelData == PIXELS


def test_encapsulated_pixels_are_unchanged_to_the_byte() -> None:
    """D13: fragments, offset table and the extended one stay as they are."""
    dataset = image(syntax=JPEGBaseline8Bit, NumberOfFrames=2)
    dataset.PixelData = encapsulate([b"\xff\xd8frame one ", b"\xff\xd8frame two, longer"])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = bytes(16), bytes(16)
    new = new_of(dataset)
    assert new.PixelData == dataset.PixelData
    assert new.ExtendedOffsetTable == bytes(16)


# -- D16, D17, D20 -----------------------------------------------------------------------------------------------------


def test_references_resolve_across_objects() -> None:
    """D16: the same UID becomes the same UID in image, reference and document; those of the standard stay."""
    first = image()
    second = image(
        SOPInstanceUID=ROOT + "9.2",
        ReferencedImageSequence=Sequence([item(ReferencedSOPInstanceUID=first.SOPInstanceUID)]),
    )
    new, other = new_of(first), new_of(second)
    assert other.ReferencedImageSequence[0].ReferencedSOPInstanceUID == new.SOPInstanceUID
    assert new.StudyInstanceUID == other.StudyInstanceUID == PSEUDONYMS.uid(first.StudyInstanceUID)
    assert new.SOPInstanceUID.startswith("2.25.")
    assert new.SOPClassUID == CTImageStorage
    kept = new_of(second, "retain_uids")
    assert kept.SOPInstanceUID == second.SOPInstanceUID
    assert kept.ReferencedImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID


def test_text_behind_a_standard_root_is_no_standard_uid() -> None:
    """D16: a name smuggled into a UID does not pass as one of the standard's."""
    content = file_of(image(FrameOfReferenceUID="1.2.840.10008.1111"))
    assert b"VDOE" not in transformed(content.replace(b"1.2.840.10008.1111", b"1.2.840.10008.VDOE"))[0]


def test_an_object_without_patient_id_is_held_back() -> None:
    """D17: empty, blank or absent: otherwise everybody would become one patient."""
    for value in (None, "", "  "):
        assert _reason(file_of(image(PatientID=value))) is Reason.NO_PATIENT_ID


def test_the_pseudonym_depends_on_patient_and_issuer() -> None:
    """D17: two patients stay two, one stays one, and the same number of two hospitals is two patients."""
    new = [new_of(one) for one in (image(), image(StudyDate="20200131"), image(PatientID="ROE-ID"))]
    other = new_of(image(IssuerOfPatientID="ELSEWHERE"))
    assert new[0].PatientID == new[1].PatientID == str(new[0].PatientName) == PSEUDONYMS.patient_id("DOE-ID")
    assert len({new[0].PatientID, new[2].PatientID, other.PatientID}) == 3


def test_the_same_patient_deeper_has_the_same_pseudonym() -> None:
    """D17: a nested Patient ID is of the issuer of the object, unless its item names another one."""
    group = Sequence([item(PatientID="DOE-ID"), item(PatientID="DOE-ID", IssuerOfPatientID="ELSEWHERE")])
    new = new_of(image(IssuerOfPatientID="HERE", GroupOfPatientsIdentificationSequence=group))
    if "GroupOfPatientsIdentificationSequence" in new:
        inner = [one.PatientID for one in new.GroupOfPatientsIdentificationSequence]
        assert inner[0] == new.PatientID
        assert inner[1] == PSEUDONYMS.patient_id("DOE-ID", "ELSEWHERE")


def test_marks_name_what_was_applied_and_nothing_else() -> None:
    """D20: YES, the method in text, one item per code of CID 7050; an option without anything to do is named."""
    new = new_of(image(), "clean_descriptors", "retain_safe_private", "clean_pixel_data")
    codes = [one.CodeValue for one in new.DeidentificationMethodCodeSequence]
    assert new.PatientIdentityRemoved == "YES"
    assert "dicomnode" in new.DeidentificationMethod
    assert codes == ["113100", "113105", "113111"]
    assert {one.CodingSchemeDesignator for one in new.DeidentificationMethodCodeSequence} == {"DCM"}


def test_marks_of_another_are_replaced() -> None:
    """D20: what an earlier tool claimed is not repeated; marks do not pile up."""
    dataset = image(PatientIdentityRemoved="NO", DeidentificationMethod="VTHEIRSV")
    dataset.DeidentificationMethodCodeSequence = code("113110", "DCM", "Retain UIDs Option")
    again = new_of(new_of(dataset))
    assert [one.CodeValue for one in again.DeidentificationMethodCodeSequence] == ["113100"]
    assert again.PatientIdentityRemoved == "YES"


def test_apply_leaves_its_argument_alone() -> None:
    """D20: the engine on a data set in memory gives a new one, with the map of UIDs, and keeps the old as it was."""
    dataset = image()
    before = file_of(dataset)
    result = deidentifier().apply(dataset)
    assert file_of(dataset) == before
    assert result.dataset.PatientID == result.applied.patient
    assert result.uids[dataset.SOPInstanceUID] == result.dataset.SOPInstanceUID
    assert result.codes == ("113100",)


# -- objects that are none ---------------------------------------------------------------------------------------------


def _cut(content: bytes) -> bytes:
    return content[:-3]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.NOT_DICOM),
        (b"name,age\nDOE,70\n" * 40, Reason.NOT_DICOM),
        (_cut(file_of(image())), Reason.MALFORMED),
        (file_of(image())[:460], Reason.MALFORMED),
    ],
)
def test_what_cannot_be_read_is_held_back(content: bytes, reason: Reason) -> None:
    """D3: no DICOM, or cut off anywhere: a reason, no exception of another kind, no output."""
    assert _reason(content) is reason


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_an_object_with_two_uids_in_one_attribute_is_held_back(keyword: str) -> None:
    """PS3.3 C.12.1: it is one object of one Study; its new file meta could name one of two only."""
    dataset: Any = image()
    dataset[keyword].value = ["1.2.3", "1.2.4"]
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    assert _reason(file_of(dataset)) is Reason.MALFORMED


def test_a_directory_of_a_medium_is_held_back() -> None:
    """D9: a DICOMDIR holds file names; it is made anew by whoever writes a medium."""
    dataset: Any = image("1.2.840.10008.1.3.10")
    assert _reason(file_of(dataset)) is Reason.DIRECTORY

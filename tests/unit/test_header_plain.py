"""Headers of one Series share what is alike in them, and nothing else."""

from __future__ import annotations

from dicomnode.detect.header_plain import ELEMENT, PlainLimits, dataset_of


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return ELEMENT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def test_a_header_reads_the_same_alone_and_behind_others() -> None:
    """Issue part 4: an element found by its bytes is the element that these bytes make, in its own character set."""
    latin = element(0x00080005, b"CS", b"ISO_IR 100") + element(0x00100010, b"PN", b"M\xdcLLER")
    utf8 = element(0x00080005, b"CS", b"ISO_IR 192") + element(0x00100010, b"PN", "MÜLLER".encode() + b" ")
    same_bytes = element(0x00080005, b"CS", b"ISO_IR 144") + element(0x00100010, b"PN", b"M\xdcLLER")
    texts = element(0x00100010, b"\0\0", b"M\xdcLLER") + element(0x00100020, b"LO", b"M\xdcLLER")
    known = PlainLimits()
    for plain in (latin, utf8, same_bytes, texts, latin):
        alone = dataset_of(plain, "1.2.840.10008.1.2.1", PlainLimits())
        behind = dataset_of(plain, "1.2.840.10008.1.2.1", known)
        assert str(behind) == str(alone)
        assert str(behind.file_meta) == str(alone.file_meta)
    assert "MÜLLER" in str(dataset_of(utf8, "", known))


def test_a_change_to_one_header_is_not_one_to_its_neighbours() -> None:
    """Issue part 4: reports are made from headers that may be changed on the way."""
    plain, known = element(0x00200013, b"IS", b"7 ") + element(0x00080060, b"CS", b"CT"), PlainLimits()
    one, other = (dataset_of(plain, "1.2.840.10008.1.2.1", known) for _ in range(2))
    assert one.InstanceNumber == 7
    one.InstanceNumber, one.Modality, one.file_meta.TransferSyntaxUID = 8, "MR", "1.2.840.10008.1.2"
    assert (other.InstanceNumber, other.Modality) == (7, "CT")
    assert other.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_long_values_and_more_than_a_series_has_are_not_kept() -> None:
    """S10: what is kept of headers is bounded, whatever they hold."""
    known = PlainLimits()
    dataset_of(element(0x00204000, b"LT", b"x" * 4096), "", known)
    assert not known.alike
    for number in range(21_000):
        dataset_of(element(0x00200013, b"IS", f"{number:06}".encode()), "", known)
    assert len(known.alike) == 20_000

"""Character sets: what stays must fit the set that the file names (PS3.3 C.12.1.1.2, trust D11)."""

from __future__ import annotations

from collections.abc import Iterable

from dicomnode.deid.tree import Element, Items, text_element
from dicomnode.dicom.header_values import DEFAULT_ENCODINGS, decode_value, encodings_of

TEXT_KINDS = frozenset({"SH", "LO", "ST", "LT", "UC", "UT", "PN"})
"""VRs that Specific Character Set applies to (PS3.5 6.1.2.3)."""
_CHARACTER_SET = 0x00080005
_UNICODE = "ISO_IR 192"
_ESCAPE = b"\x1b"


def text_of(value: bytes, encodings: tuple[str, ...]) -> str:
    """All of ``value`` as one text; replacement characters where bytes are none of its set."""
    found = decode_value("LT", value, big_endian=False, encodings=encodings)
    return str(found[0]) if found else ""


def legible(value: bytes, encodings: tuple[str, ...]) -> bytes:
    """``value`` itself when it fits its set; else with ``?`` for every byte beyond ASCII."""
    unnamed = encodings[0] in DEFAULT_ENCODINGS and _ESCAPE not in value
    if not unnamed and "\ufffd" not in text_of(value, encodings):
        return value
    return bytes(byte if byte < 0x80 and byte != _ESCAPE[0] else ord("?") for byte in value)


def fits(texts: Iterable[str], encodings: tuple[str, ...]) -> bool:
    """Whether a file with these codecs can hold every text without escape sequences."""
    return all(text.isascii() or in_set(text, encodings) is not None for text in texts)


def in_set(text: str, encodings: tuple[str, ...]) -> bytes | None:
    """``text`` in the one set of a file; None when it does not fit, or only with code extensions."""
    if text.isascii():
        return text.encode()
    if len(encodings) > 1 or encodings[0] in DEFAULT_ENCODINGS:
        return None
    try:
        return text.encode(encodings[0])
    except UnicodeEncodeError:
        return None


def to_unicode(elements: list[Element]) -> list[Element]:
    """The tree with every text in ISO_IR 192."""
    rest = [element for element in _converted(elements, DEFAULT_ENCODINGS) if element.tag != _CHARACTER_SET]
    return sorted([text_element(_CHARACTER_SET, _UNICODE), *rest], key=lambda element: element.tag)


def _converted(elements: list[Element], encodings: tuple[str, ...]) -> list[Element]:
    for element in elements:
        if element.tag == _CHARACTER_SET and isinstance(element.value, bytes):
            encodings = encodings_of(element.value)
    new = []
    for element in elements:
        value = element.value
        if isinstance(value, Items):
            items = tuple(
                [one for one in _converted(item, encodings) if one.tag != _CHARACTER_SET] for item in value.items
            )
            new.append(element._replace(value=Items(items, value.alien)))
        elif isinstance(value, bytes) and element.kind in TEXT_KINDS and (not value.isascii() or _ESCAPE in value):
            text = text_of(legible(value, encodings), encodings).encode()
            new.append(element._replace(value=text + b" " * (len(text) % 2)))
        else:
            new.append(element)
    return new

"""Application Entity titles (PS3.5 section 6.2, VR AE)."""

from __future__ import annotations

_MAX_CHARACTERS = 16


def ae_title(value: str) -> str:
    """Return ``value`` without its insignificant leading and trailing spaces.

    Raises ValueError unless 1 to 16 characters of the default repertoire remain, without backslash and control
    characters. The message does not repeat the value: a calling AE title is untrusted text.
    """
    title = value.strip(" ")
    if not title:
        raise ValueError("an AE title holds at least one character that is not a space")
    if len(title) > _MAX_CHARACTERS:
        raise ValueError(f"an AE title has at most {_MAX_CHARACTERS} characters")
    if not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError("an AE title has no backslash, no control characters and only ASCII")
    return title

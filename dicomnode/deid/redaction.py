"""Texts that leave with a support bundle: known identifiers are taken out, UIDs are replaced by names of no meaning."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterable
from typing import Any

from dicomnode.deid.byte_search import ByteSearch
from dicomnode.deid.pseudonyms import STANDARD_ROOT

REMOVED = "[removed]"
_LEAST = 4
"""Shorter identifiers are part of too many words and numbers to be told from them; no field of a bundle holds one."""
_DOTS_OF_A_VERSION, _SHORTEST = 2, 12
"""A UID of three parts, such as 2.25.N, is longer than the version of any software."""
_UID = re.compile(r"(?<![\w.])[0-2](?:\.\d+){2,}(?![\w.]*\w)")


class Redactor:
    """Takes ``identifiers`` out of texts. A UID has one name in a whole bundle, and another in the next."""

    def __init__(self, identifiers: Iterable[str]) -> None:
        spelled = {text.strip() for text in identifiers}
        self._search = ByteSearch(text.encode(errors="replace") for text in spelled if len(text) >= _LEAST)
        self._key = os.urandom(32)

    def text(self, value: str) -> str:
        """``value`` without identifiers."""
        content, rest = _UID.sub(self._named, value).encode(errors="replace"), bytearray()
        at = 0
        for hit in self._search.hits(content):
            if hit.offset >= at:
                rest += content[at : hit.offset] + REMOVED.encode()
                at = hit.offset + len(hit.value)
        return bytes(rest + content[at:]).decode(errors="replace")

    def tree(self, value: Any) -> Any:
        """JSON ``value`` with every text and every key redacted; numbers stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.tree(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(inner) for inner in value]
        return value

    def finds(self, content: str) -> bool:
        """Whether an identifier stands in ``content`` still."""
        return next(self._search.hits(content.encode(errors="replace")), None) is not None

    def _named(self, found: re.Match[str]) -> str:
        uid = found[0]
        is_version = uid.count(".") == _DOTS_OF_A_VERSION and len(uid) < _SHORTEST
        if is_version or f"{uid}.".startswith(f"{STANDARD_ROOT}."):
            return uid
        return f"uid-{hmac.digest(self._key, uid.encode(), 'sha256')[:6].hex()}"

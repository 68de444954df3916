"""Keyed pseudonyms: the same input gives the same output in every process, on every node, for the life of a key.

HMAC-SHA256(key, domain || 0x00 || issuer || 0x00 || value), RFC 2104. Without the key neither can a pseudonym be
turned back nor a guess at the patient be tried: that is what a plain hash of a Patient ID allows.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from functools import lru_cache

from dicomnode.deid.keys import ProjectKey
from dicomnode.errors import ConfigError, Permanent

MAX_SHIFT_DAYS = 3650
STANDARD_ROOT = "1.2.840.10008"
"""UIDs under it are defined by the standard (PS3.6 annex A) and say nothing about a patient."""
PADDING = " \0"
"""What stands around a value to make its length even, or to fill a column (PS3.5 6.2)."""
_CACHED = 65_536
_HEX_DIGITS = 16
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,32}")


class Pseudonyms:
    """What stands in place of identifiers in one project. May be shared by threads and sent to other processes."""

    def __init__(self, key: ProjectKey, prefix: str = "ANON-") -> None:
        """``prefix``: readable beginning of a patient's pseudonym, letters, digits, ``-`` and ``_``.

        Raises ConfigError when it is too long or has other characters.
        """
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError("the prefix of a pseudonym has at most 32 letters, digits, - and _")
        self.key, self.prefix = key, prefix
        self.uid: Callable[[str], str] = lru_cache(_CACHED)(self._uid)

    def __reduce__(self) -> tuple[type[Pseudonyms], tuple[ProjectKey, str]]:
        return Pseudonyms, (self.key, self.prefix)

    def digest(self, domain: str, value: str, issuer: str = "") -> bytes:
        """The 32 bytes behind every pseudonym (trust D15). Padding around ``value`` and ``issuer`` does not count."""
        issuer = issuer.strip(PADDING).replace("\0", "")
        parts = (part.encode("utf-8", "surrogatepass") for part in (domain, issuer, value.strip(PADDING)))
        return hmac.digest(self.key.secret, b"\0".join(parts), "sha256")

    def _uid(self, value: str) -> str:
        """The UID in place of ``value``, also where that is no valid UID; a UID of the standard stays (trust D16).

        ``2.25.`` and 128 bits as a decimal number (PS3.5 B.2). An empty value stays empty.
        """
        plain = value.strip(PADDING)
        if not plain or plain == STANDARD_ROOT or plain.startswith(f"{STANDARD_ROOT}."):
            return plain
        return f"2.25.{int.from_bytes(self.digest('uid', plain)[:16])}"

    def patient_id(self, value: str, issuer: str = "") -> str:
        """The prefix and 16 hexadecimal digits (trust D17).

        Raises Permanent for an empty Patient ID: otherwise everybody without one would become one patient.
        """
        _require_patient(value)
        return f"{self.prefix}{self._digits('patient', value, issuer)}"

    def accession(self, value: str, issuer: str = "") -> str:
        """16 hexadecimal digits, as many as VR SH holds (PS3.5 6.2). An empty value stays empty."""
        return self._digits("accession", value, issuer)

    def study_id(self, value: str, issuer: str = "") -> str:
        """16 hexadecimal digits for a Study ID. An empty value stays empty."""
        return self._digits("study-id", value, issuer)

    def day_shift(self, patient_id: str, issuer: str = "") -> int:
        """By how many whole days, 1 to 3650, the dates of a patient go back (trust D18).

        Raises Permanent for an empty Patient ID.
        """
        _require_patient(patient_id)
        return 1 + int.from_bytes(self.digest("date", patient_id, issuer)[:8]) % MAX_SHIFT_DAYS

    def _digits(self, domain: str, value: str, issuer: str) -> str:
        return self.digest(domain, value, issuer).hex()[:_HEX_DIGITS] if value.strip(PADDING) else ""


def _require_patient(value: str) -> None:
    if not value.strip(PADDING):
        raise Permanent("there is no Patient ID")

"""How Data Elements are encoded (PS3.5 7.1, 7.5): Value Representations by their length field, delimiters."""

from __future__ import annotations

LONG_VR = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""A length of 32 bits behind two reserved bytes (table 7.1-1)."""
SHORT_VR = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
"""A length of 16 bits (table 7.1-2)."""
ANY_VR = LONG_VR | SHORT_VR
ITEM_BEGIN, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED_LENGTH = 0xFFFFFFFF

"""The provenance of a result as a picture: boxes and arrows, readable in black and white, without patient data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dicomnode.audit.provenance import Analysis

Shape = Literal["entity", "activity", "agent"]
BOX_W, LINE_H, PAD, GAP_X, GAP_Y, MARGIN = 178, 17, 8, 46, 14, 24
LONGEST = 25
"""Characters of a label; what is longer is cut."""
_TITLE_H = 30
_MOST_BOXES = 12
"""Boxes of one column; those beyond are one box that says how many."""


@dataclass(frozen=True, slots=True)
class Item:
    """What a box shows. ``sources``: the keys of the items that lead to it."""

    key: str
    shape: Shape
    lines: tuple[str, ...]
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """A box with its lines; left upper corner and size in pixels."""

    x: int
    y: int
    lines: tuple[str, ...]
    shape: Shape

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.lines) * LINE_H + 2 * PAD

    @property
    def left(self) -> tuple[int, int]:
        """The middle of the left side."""
        return self.x, self.y + self.height // 2

    @property
    def right(self) -> tuple[int, int]:
        """The middle of the right side."""
        return self.x + BOX_W, self.y + self.height // 2


@dataclass(frozen=True, slots=True)
class Picture:
    """Boxes, and arrows from the right of one to the left of another. Sizes in pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    arrows: tuple[tuple[Box, Box], ...]


def picture_of(analyses: Sequence[Analysis]) -> Picture:
    """The layout: one band for each analysis, from the senders on the left to the destinations on the right."""
    boxes: list[Box] = []
    arrows: list[tuple[Box, Box]] = []
    top = MARGIN + _TITLE_H
    for analysis in analyses:
        columns = _columns(analysis)
        placed = {key: box for number, items in enumerate(columns) for key, box in _column(number, items, top).items()}
        band = dict.fromkeys(placed.values())
        boxes += band
        leads = [(placed[source], placed[item.key]) for items in columns for item in items for source in item.sources]
        arrows += dict.fromkeys(leads)
        top = max((box.y + box.height for box in band), default=top) + 3 * GAP_Y
    width = max((box.x + BOX_W for box in boxes), default=0) + MARGIN
    return Picture(width, top + LINE_H + MARGIN, tuple(boxes), tuple(arrows))


def _columns(analysis: Analysis) -> list[list[Item]]:
    facts, count = analysis.facts, len(analysis.sources)
    senders = [Item(f"from {name}", "agent", ("sender", name)) for name in analysis.senders]
    images = (f"{count} source image{'s' * (count != 1)}", f"generation {facts.get('generation', '?')}")
    model = f"{facts.get('model', '?')} {facts.get('model_version', '')}".strip()
    digest = _short_digest(str(facts.get("weights_sha256", "")))
    kinds = Counter(one.kind or "object" for one in analysis.made)
    copies = [
        Item(f"copies {one.seq}", "agent", (one.peer, f"{len(one.digests)} de-identified", one.profile), ("images",))
        for one in analysis.copies
    ]
    return [
        senders,
        [Item("images", "entity", images, tuple(item.key for item in senders))],
        [
            Item("volume", "entity", ("volume", _short_digest(analysis.volume_sha256)), ("images",)),
            Item("model", "entity", ("model", model, digest)),
            *copies,
        ],
        [
            Item(
                "run",
                "activity",
                ("analysis", str(facts.get("detector", "?")), f"row {analysis.seq}"),
                ("volume", "model"),
            )
        ],
        [Item("outcome", "entity", (str(facts.get("outcome", "?")), *_score(analysis)), ("run",))],
        [Item(f"kind {kind}", "entity", ("result", f"{n} {kind}"), ("outcome",)) for kind, n in kinds.items()],
        _peers(analysis),
    ]


def _score(analysis: Analysis) -> tuple[str, ...]:
    score, threshold = analysis.facts.get("score"), analysis.facts.get("threshold")
    if not isinstance(score, (int, float)):
        return ()
    limit = f" (limit {threshold:.3g})" if isinstance(threshold, (int, float)) else ""
    return (f"score {score:.3g}{limit}",)


def _peers(analysis: Analysis) -> list[Item]:
    """One box for each destination: what arrived there, and whether it was committed."""
    kinds, found = {one.uid: one.kind or "object" for one in analysis.made}, []
    for peer in dict.fromkeys(one.peer for one in analysis.deliveries):
        mine = [one for one in analysis.deliveries if one.peer == peer]
        there = {uid for one in mine if one.done for uid in one.uids}
        words = f"{len(there)} delivered" if there else "not delivered"
        tried = dict.fromkeys(f"kind {kinds[uid]}" for one in mine for uid in one.uids)
        committed = "committed" if any(one.committed for one in mine) else ""
        found.append(Item(f"to {peer}", "agent", (peer, words, committed), tuple(tried)))
    return found


def _column(number: int, items: Sequence[Item], top: int) -> dict[str, Box]:
    """Key to box. Those beyond ``_MOST_BOXES`` share one that says how many they are."""
    boxes, y, x = {}, top, MARGIN + number * (BOX_W + GAP_X)
    few = len(items) <= _MOST_BOXES
    for item in items if few else items[: _MOST_BOXES - 1]:
        boxes[item.key] = Box(x, y, tuple(_short(line) for line in item.lines if line), item.shape)
        y += boxes[item.key].height + GAP_Y
    rest = [] if few else items[_MOST_BOXES - 1 :]
    return boxes | {item.key: Box(x, y, (f"and {len(rest)} more",), item.shape) for item in rest}


def _short(line: str) -> str:
    plain = "".join(sign if sign.isprintable() else "?" for sign in line)
    return plain if len(plain) <= LONGEST else plain[: LONGEST - 1] + "…"


def _short_digest(digest: str) -> str:
    return f"SHA-256 {digest[:12]}" if digest else ""

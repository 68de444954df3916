"""Begin and end of every transfer, by Association and Study, and what the rows of its Instances add up to (A7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit.events import Event
from dicomnode.store.tables import AssociationRow

COUNTED = {
    Event.INSTANCE_STORED: "n_new",
    Event.INSTANCE_REPEATED: "n_repeated",
    Event.INSTANCE_CONFLICT: "n_conflict",
}
"""Rows of Instances, and where "instances transferred" counts them."""
Key = tuple[int, str]
"""An Association and a Study, empty where no Instance of it could be read."""


class Transfers:
    """What the log says of transfers, gathered row by row."""

    def __init__(self) -> None:
        self.begun: Counter[Key] = Counter()
        self.ended: dict[Key, list[dict[str, Any]]] = {}
        self.counted: dict[Key, Counter[str]] = {}
        self._peer: dict[Key, str] = {}

    @property
    def studies(self) -> set[str]:
        """Every Study that a transfer was about."""
        return {study for _, study in (*self.begun, *self.ended) if study}

    def take(self, row: Mapping[str, Any]) -> None:
        """A row of "begin transferring" or "instances transferred"."""
        body = row["body"]
        if not isinstance(body, dict) or not isinstance(body.get("association"), int):
            return
        key = (body["association"], str(body.get("StudyInstanceUID", "")))
        self._peer[key] = str(body.get("peer") or body.get("CallingAETitle") or "")
        if row["kind"] == Event.BEGIN_TRANSFERRING:
            self.begun[key] += 1
        else:
            self.ended.setdefault(key, []).append(body)

    def count(self, study: str, received: Mapping[int, Counter[str]]) -> None:
        """The rows of the Instances of ``study``, by Association."""
        for association, kinds in received.items():
            self.counted[association, study] = Counter({COUNTED[Event(kind)]: n for kind, n in kinds.items()})

    def peers(self) -> dict[str, Counter[str]]:
        """Of each peer: transfers begun and ended, Instances told at the end and by their own rows."""
        found: dict[str, Counter[str]] = {}
        for key, peer in self._peer.items():
            mine = found.setdefault(peer, Counter())
            mine["begun"] += self.begun[key]
            mine["ended"] += len(self.ended.get(key, ()))
            mine["told"] += sum(
                int(body.get(name) or 0) for body in self.ended.get(key, ()) for name in COUNTED.values()
            )
            mine["refused"] += sum(int(body.get("n_refused") or 0) for body in self.ended.get(key, ()))
            mine["recorded"] += sum(self.counted.get(key, Counter()).values())
        return found


def transfer_differences(session: Session, found: Transfers, since: float) -> Iterator[tuple[str, dict[str, Any]]]:
    """What does not add up. An open Association has not ended; one from before ``since`` is not judged."""
    states = {row.id: row for row in session.scalars(select(AssociationRow).where(AssociationRow.opened_at >= since))}
    for key in sorted({*found.begun, *found.ended, *found.counted}):
        association, study = key
        row = states.get(association)
        if row is None:
            continue
        about = {"association": association, "peer": row.peer, "StudyInstanceUID": study}
        ends = found.ended.get(key, [])
        if found.begun[key] != 1:
            yield "transfer without one beginning", about | {"begun": found.begun[key]}
        if row.ended == "open":
            continue
        if len(ends) != 1:
            yield "transfer without one end", about | {"ended": len(ends)}
            continue
        told = {name: int(ends[0].get(name) or 0) for name in COUNTED.values()}
        recorded = {name: found.counted.get(key, Counter())[name] for name in COUNTED.values()}
        if told != recorded:
            yield "transfer counts differ", about | {"told": told, "recorded": recorded}

"""The copy of the log at an audit record repository: every row in order, again after an outage, none left out.

The position is a row of the database, moved on when the repository has closed the connection in order behind what was
sent. A node that dies between the two sends the last messages again: a repository may see a row twice, never not.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicomnode.audit.chain import append
from dicomnode.audit.events import Event
from dicomnode.audit.message import Message, message_of
from dicomnode.audit.message_xml import to_xml
from dicomnode.audit.query import AuditFilter, find
from dicomnode.audit.syslog import ERROR, NOTICE, WARNING, SyslogMessage, SyslogSender
from dicomnode.errors import Transient
from dicomnode.store.engine import Store
from dicomnode.store.tables import AuditRow, AuditShippedRow

BATCH = 500
"""Rows read, told and sent over one connection."""
PER_IMAGE = ("instance stored", "instance repeated")
_SEVERITIES = {"0": NOTICE, "4": WARNING}


@dataclass(frozen=True, slots=True)
class Shipment:
    """Where the rows go and as what. ``images``: is there a message for each image too?

    ``alert_after_s``: seconds without the repository after which that is recorded as a security alert.
    """

    sender: SyslogSender
    place: str
    ae_title: str
    host: str
    images: bool
    alert_after_s: float


def ship(store: Store, shipment: Shipment, now: float, most: int = 20) -> int:
    """Send what is new, ``most`` batches at most; returns how many rows the position moved on.

    Raises Transient when the repository does not take them: they go with the next call.
    """
    moved = 0
    for _ in range(most):
        step = _ship_batch(store, shipment, now)
        moved += step
        if step < BATCH:
            break
    return moved


def _ship_batch(store: Store, shipment: Shipment, now: float) -> int:
    with store.read() as session:
        position = _position(session, shipment.place)
        last = session.scalar(select(func.max(AuditRow.seq))) or 0
        first = max(position, (session.scalar(select(func.min(AuditRow.seq))) or 1) - 1)
        end = min(last, first + BATCH)
        messages = [_told(message) for message in _messages(session, shipment, first, end)]
    if end <= position:
        return 0
    if messages:
        try:
            shipment.sender.send(messages)
        except Transient as error:
            _failed(store, shipment, str(error), now)
            raise
    with store.write() as session:
        row = _row(session, shipment.place)
        if 0 < position < first:
            words = f"{first - position} audit rows were archived before their repository had them: send it the archive"
            append(session, Event.SECURITY_ALERT, {"reason": words, "repository": shipment.place, "shipped": position})
        row.seq, row.shipped_at, row.failed_since, row.alerted, row.error = end, now, None, False, ""
    return end - position


def _messages(session: Session, shipment: Shipment, after: int, end: int) -> list[Message]:
    rows = find(session, AuditFilter(seqs=(after + 1, end)))
    wanted = (row for row in rows if shipment.images or row["kind"] not in PER_IMAGE)
    return [message_of(row, shipment.ae_title, shipment.host) for row in wanted]


def _told(message: Message) -> SyslogMessage:
    return SyslogMessage(to_xml(message), message.at, severity=_SEVERITIES.get(message.outcome, ERROR))


def _failed(store: Store, shipment: Shipment, reason: str, now: float) -> None:
    """Remember since when the repository is not reached; a long outage is an alert, once."""
    with store.write() as session:
        row = _row(session, shipment.place)
        row.failed_since, row.error = row.failed_since or now, reason
        if not row.alerted and now - row.failed_since >= shipment.alert_after_s:
            row.alerted = True
            words = f"audit record repository not reached for {now - row.failed_since:.0f} s: {reason}"
            append(session, Event.SECURITY_ALERT, {"reason": words, "repository": shipment.place, "shipped": row.seq})


def _row(session: Session, place: str) -> AuditShippedRow:
    row = session.get(AuditShippedRow, place)
    if row is None:
        row = AuditShippedRow(place=place, seq=0, alerted=False, error="")
        session.add(row)
        session.flush()
    return row


def _position(session: Session, place: str) -> int:
    row = session.get(AuditShippedRow, place)
    return row.seq if row else 0


@dataclass(frozen=True, slots=True)
class Behind:
    """How far a copy is behind. ``rows``: not sent yet; ``failed_since``: in seconds since the epoch."""

    place: str
    rows: int
    failed_since: float | None
    error: str


def behind(session: Session, place: str) -> Behind:
    """The state of the copy at ``place``."""
    row = session.get(AuditShippedRow, place)
    last = session.scalar(select(func.max(AuditRow.seq))) or 0
    shipped = row.seq if row else 0
    return Behind(place, last - shipped, row.failed_since if row else None, row.error if row else "")

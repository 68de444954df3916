"""Questions to the log, and its export."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from sqlalchemy import ColumnElement, LargeBinary, Select, and_, case, cast, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.audit.chain import canonical
from dicomnode.errors import Permanent
from dicomnode.store.audit_sql import SUBJECT_LENGTH, subject_sql
from dicomnode.store.tables import AuditRow

_FORMULA = frozenset("=+-@\t\r\n")
_AFTER = "~"
"""Behind the characters that follow a value in canonical JSON: a comma or a closing brace."""
COLUMNS = ("seq", "ts", "kind", "PatientID", "StudyInstanceUID", "body", "prev", "hash")


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows; None takes all.

    ``since`` (included) and ``until`` (excluded): ISO 8601, UTC unless they name another zone. ``event``: the kind,
    with spaces or underscores. ``limit``: the newest ones.
    """

    patient: str | None = None
    study: str | None = None
    event: str | None = None
    since: str | None = None
    until: str | None = None
    seq: int | None = None
    limit: int | None = None

    def statement(self) -> Select[Any]:
        """The rows in order, as they lie there (bytes for text). Raises Permanent for a time that is not ISO 8601."""
        wanted = select(AuditRow.seq)
        if self.patient is not None:
            wanted = wanted.where(about("PatientID", self.patient))
        if self.study is not None:
            wanted = wanted.where(about("StudyInstanceUID", self.study))
        if self.event is not None:
            kind = AuditRow.kind if self.patient is None and self.study is None else AuditRow.kind.concat("")
            wanted = wanted.where(kind == self.event.replace("_", " ").lower())  # concat: a subject's index is better
        if self.since is not None:
            wanted = wanted.where(AuditRow.ts >= _utc(self.since))
        if self.until is not None:
            wanted = wanted.where(AuditRow.ts < _utc(self.until))
        if self.seq is not None:
            wanted = wanted.where(AuditRow.seq == self.seq)
        if self.limit is not None:
            wanted = wanted.order_by(AuditRow.seq.desc()).limit(self.limit)
        return _RAW.where(AuditRow.seq.in_(wanted)).order_by(AuditRow.seq)


def _raw(column: InstrumentedAttribute[Any]) -> Any:
    return cast(column, LargeBinary).label(column.key)


_RAW = select(
    AuditRow.seq,
    *(_raw(column) for column in (AuditRow.ts, AuditRow.kind, AuditRow.body)),
    func.lower(func.hex(AuditRow.prev)).label("prev"),
    func.lower(func.hex(AuditRow.hash)).label("hash"),
)
"""Columns that can be read whatever an intruder wrote into them."""


def find(session: Session, wanted: AuditFilter) -> Iterator[dict[str, Any]]:
    """The rows as plain dictionaries; ``body`` is decoded, hashes are hex. A tampered row is shown as it is."""
    for row in _rows(session, wanted):
        yield {**row, "body": _decoded(row["body"])}


def export_csv(session: Session, wanted: AuditFilter, target: TextIO) -> int:
    """Write the rows as CSV with a header line; returns how many. Cells never start a spreadsheet formula.

    ``body`` is the stored text, so that the hashes can be computed again from the file.
    """
    writer = csv.writer(target)
    writer.writerow(COLUMNS)
    count = 0
    for row in _rows(session, wanted):
        decoded = _decoded(row["body"])
        found = decoded if isinstance(decoded, dict) else {}
        identifiers = {keyword: _visible(found.get(keyword, "")) for keyword in ("PatientID", "StudyInstanceUID")}
        writer.writerow([_inert({**row, **identifiers}[column]) for column in COLUMNS])
        count += 1
    return count


def _rows(session: Session, wanted: AuditFilter) -> Iterator[dict[str, Any]]:
    for row in session.execute(wanted.statement().execution_options(yield_per=1000)):
        yield {
            "seq": row.seq,
            "ts": _text(row.ts),
            "kind": _text(row.kind),
            "body": _text(row.body),
            "prev": row.prev or "",
            "hash": row.hash or "",
        }


def about(keyword: str, value: str) -> ColumnElement[bool]:
    """That a row's body says ``value`` of ``keyword`` (one of ``store.audit_sql.SUBJECTS``), found by its index."""
    said: ColumnElement[str] = literal_column(subject_sql(keyword))
    begin = f"{canonical(value)[1:].encode('utf-8', 'replace').decode()}"[:SUBJECT_LENGTH]
    found = said == begin if len(begin) == SUBJECT_LENGTH else and_(said >= begin, said < begin + _AFTER)
    return and_(found, body_value(keyword) == value)


def body_value(keyword: str) -> ColumnElement[Any]:
    """A value of the body; none where an intruder left something that is no JSON."""
    return case((func.json_valid(AuditRow.body), func.json_extract(AuditRow.body, f"$.{keyword}")))


def _utc(value: str) -> str:
    """``value`` as the log writes times, so that they compare as text."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise Permanent(f"{value!r} is not an ISO 8601 date or time") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _decoded(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _visible(value: Any) -> str:
    """What a peer sent, with its control characters written as escapes: the export may go to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def _inert(cell: Any) -> str:
    """A cell that a spreadsheet shows and never evaluates (OWASP, CSV injection)."""
    shown = str(cell).encode("utf-8", "replace").decode()
    return f"'{shown}" if shown[:1] in _FORMULA else shown

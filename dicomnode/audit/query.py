"""Questions to the log: which rows, by whichever index leads to them with the fewest steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, and_, case, cast, func, literal_column, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from dicomnode.audit.chain import canonical
from dicomnode.errors import Permanent
from dicomnode.store.audit_sql import PEER_INDEXES, PEER_SQL, SUBJECT_LENGTH, holds_sql, subject_sql, value_sql
from dicomnode.store.tables import AssignmentRow, AuditRow, DerivedRow, InstanceRow, SeriesRow, StudyRow

_AFTER = "~"
"""Behind the characters that follow a value in canonical JSON: a comma or a closing brace."""
_DIGEST = re.compile(r"[0-9a-fA-F]{8,64}")
_DIGEST_LENGTH = 64
_MANY = 50_000
_NEVER = "~"
"""Behind every time."""


_LEADS = ("seq", "seqs", "study", "patient", "model", "user", "outcome", "peer", "event")
"""The filters that have an index, the one that finds the fewest rows first."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows; None takes all, several together take the rows that fit every one.

    ``since`` (included) and ``until`` (excluded): ISO 8601, UTC unless they name another zone. ``event``: a kind or
    several, with spaces or underscores. ``peer``: a name, an AE title, or several of one peer. ``model``: a name,
    ``name@version``, ``name@digest``, or the weights' SHA-256 or its beginning (8 digits or more). ``limit``: the
    newest ones. ``seqs``: first and last number. ``scan``: look into every row, not only where the node's tables and
    indexes lead.
    """

    patient: str | None = None
    accession: str | None = None
    study: str | None = None
    series: str | None = None
    instance: str | None = None
    peer: str | Collection[str] | None = None
    user: str | None = None
    event: str | Collection[str] | None = None
    model: str | None = None
    outcome: str | None = None
    since: str | None = None
    until: str | None = None
    seq: int | None = None
    seqs: tuple[int, int] | None = None
    limit: int | None = None
    scan: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of row that ``event`` names."""
        return tuple(name.replace("_", " ").lower() for name in _several(self.event))

    @property
    def peers(self) -> tuple[str, ...]:
        """The names and AE titles of ``peer``."""
        return _several(self.peer)

    @property
    def lead(self) -> str:
        """The filter whose index leads to the rows; ``time`` where none but the times is given."""
        tables = any((self.instance, self.series, self.accession is not None and self.patient is None))
        if self.seq is None and self.seqs is None and self.study is None and tables:
            return "tables"
        return next((name for name in _LEADS if getattr(self, name) is not None), "time")

    def statement(self, within: tuple[int, int] | None = None) -> Select[Any]:
        """The rows in order, as they lie there (bytes for text). ``within``: the first and last ``seq`` that can fit.

        Raises Permanent for a time that is not ISO 8601.
        """
        found = [self._newest(source) for source in self._sources(within)]
        if len(found) == 1:
            return _RAW.where(AuditRow.seq.in_(found[0])).order_by(AuditRow.seq)
        together = select(AuditRow.seq).where(or_(*(AuditRow.seq.in_(one) for one in found)))
        return _RAW.where(AuditRow.seq.in_(self._newest(together))).order_by(AuditRow.seq)

    def conditions(self, leading: str = "") -> list[ColumnElement[bool]]:
        """What a row has to fulfil beside the condition that led to it; written so that no other index is tempting."""
        wanted: dict[str, Callable[[], ColumnElement[bool]]] = {
            "seq": lambda: AuditRow.seq == self.seq,
            "seqs": lambda: AuditRow.seq.between(*(self.seqs or (0, 0))),
            "study": lambda: body_value("StudyInstanceUID") == self.study,
            "series": lambda: mentions(self.series or ""),
            "instance": lambda: mentions(self.instance or ""),
            "patient": lambda: body_value("PatientID") == self.patient,
            "accession": lambda: body_value("AccessionNumber") == self.accession,
            "model": lambda: _model(self.model or ""),
            "user": lambda: body_value("user") == self.user,
            "outcome": lambda: body_value("outcome") == self.outcome,
            "peer": lambda: func.coalesce(body_value("peer"), body_value("CallingAETitle")).in_(self.peers),
            "event": lambda: AuditRow.kind.concat("").in_(self.kinds),
        }
        found: list[ColumnElement[bool]] = [
            make() for name, make in wanted.items() if getattr(self, name) is not None and name != leading
        ]
        ts: Any = AuditRow.ts if leading == "time" else AuditRow.ts.concat("")
        if self.since is not None:
            found.append(ts >= utc(self.since))
        if self.until is not None:
            found.append(ts < utc(self.until))
        return found

    def _sources(self, within: tuple[int, int] | None) -> list[Select[Any]]:
        """Statements of ``seq`` that together find every row."""
        if self.scan:
            return [select(AuditRow.seq).where(*self.conditions())]
        studies = self.studies() if self.lead == "tables" else None
        if studies is not None:
            return [_of_studies(studies).where(*self.conditions())]
        led: dict[str, Callable[[], Sequence[Sequence[ColumnElement[bool]]]]] = {
            "seq": lambda: [(AuditRow.seq == self.seq,)],
            "seqs": lambda: [(AuditRow.seq.between(*(self.seqs or (0, 0))),)],
            "study": lambda: [(about("StudyInstanceUID", self.study or ""),)],
            "patient": lambda: [(about("PatientID", self.patient or ""),)],
            "model": lambda: [_by_model(self.model or "")],
            "user": lambda: [_by_value("user", self.user or "")],
            "outcome": lambda: [_by_value("outcome", self.outcome or "")],
            "event": lambda: [(AuditRow.kind == kind, *_between(within)) for kind in self.kinds],
        }
        ways = led[self.lead]() if self.lead in led else [()]
        return [select(AuditRow.seq).where(*way, *self.conditions(self.lead)) for way in ways]

    def studies(self) -> Select[Any] | None:
        """The Study Instance UIDs to which the node's tables lead; None when this asks for nothing of that kind."""
        of_series = select(StudyRow.StudyInstanceUID).join(SeriesRow, SeriesRow.study_id == StudyRow.id)
        if self.instance is not None:
            received = of_series.join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
            made = of_series.join(AssignmentRow, AssignmentRow.series_id == SeriesRow.id)
            made = made.join(DerivedRow, DerivedRow.assignment_id == AssignmentRow.id)
            both = received.where(InstanceRow.SOPInstanceUID == self.instance).union(
                made.where(DerivedRow.SOPInstanceUID == self.instance)
            )
            return select(both.subquery().c.StudyInstanceUID)
        if self.series is not None:
            received = of_series.where(SeriesRow.SeriesInstanceUID == self.series).distinct()
            return select(received.subquery().c.StudyInstanceUID)
        if self.accession is not None and self.patient is None:
            return select(StudyRow.StudyInstanceUID).where(StudyRow.AccessionNumber == self.accession)
        return None

    def _newest(self, source: Select[Any]) -> Select[Any]:
        """The newest of ``source``: by number; by time where the index of times leads, which has them in that order."""
        if self.limit is None:
            return source
        timed = self.lead == "time" and (self.since is not None or self.until is not None)
        order = (AuditRow.ts.desc(), AuditRow.seq.desc()) if timed else (AuditRow.seq.desc(),)
        return source.order_by(*order).limit(self.limit)


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
    for row in find_raw(session, wanted):
        yield {**row, "body": decoded(row["body"])}


def find_raw(session: Session, wanted: AuditFilter) -> Iterator[dict[str, Any]]:
    """``find`` with ``body`` as the text that was hashed."""
    for row in session.execute(_plan(session, wanted).execution_options(yield_per=1000)):
        yield {
            "seq": row.seq,
            "ts": _text(row.ts),
            "kind": _text(row.kind),
            "body": _text(row.body),
            "prev": row.prev or "",
            "hash": row.hash or "",
        }


def _plan(session: Session, wanted: AuditFilter) -> Select[Any]:
    """What the tables do not know (a removed image, a foreign number) is looked for in every row: none is missed."""
    everywhere = replace(wanted, scan=True).statement()
    if wanted.lead == "event" and not wanted.scan:
        return wanted.statement(span(session, wanted.since, wanted.until))
    if wanted.scan or wanted.lead not in {"tables", "peer"}:
        return wanted.statement()
    if wanted.lead == "tables":
        studies = wanted.studies()
        known = studies is not None and session.execute(studies.limit(1)).first() is not None
        return wanted.statement() if known else everywhere
    from dicomnode.audit.of_peer import newest_of_peer  # it asks questions of this module

    found = newest_of_peer(session, wanted)
    return everywhere if found is None else _RAW.where(AuditRow.seq.in_(found)).order_by(AuditRow.seq)


def span(session: Session, since: str | None, until: str | None) -> tuple[int, int] | None:
    """The first and the last ``seq`` of a time, whatever order the clock gave its rows.

    None when no time is given, or when too many rows are of it to look at each one's time.
    """
    if since is None and until is None:
        return None
    first, last = utc(since) if since is not None else "", utc(until) if until is not None else _NEVER
    rows = select(AuditRow.seq).where(AuditRow.ts >= first, AuditRow.ts < last).limit(_MANY + 1).subquery()
    low, high, count = session.execute(select(func.min(rows.c.seq), func.max(rows.c.seq), func.count())).one()
    return None if count > _MANY else (low or 0, high or 0)


def _between(within: tuple[int, int] | None) -> tuple[ColumnElement[bool], ...]:
    return () if within is None else (AuditRow.seq >= within[0], AuditRow.seq <= within[1])


def by_peer(names: Collection[str], index: str) -> Select[Any]:
    """``seq`` of the rows in an index of peers; see ``store.audit_sql.ONE_PER_IMAGE`` for those in none."""
    said: ColumnElement[str] = literal_column(PEER_SQL)
    cut = [_until_quote(name) for name in names]
    found = said == cut[0] if len(cut) == 1 else said.in_(cut)
    return select(AuditRow.seq).where(found, literal_column(PEER_INDEXES[index]))


def about(keyword: str, value: str) -> ColumnElement[bool]:
    """That a row's body says ``value`` of ``keyword`` (one of ``store.audit_sql.SUBJECTS``), found by its index."""
    said: ColumnElement[str] = literal_column(subject_sql(keyword))
    begin = f"{canonical(value)[1:].encode('utf-8', 'replace').decode()}"[:SUBJECT_LENGTH]
    found = said == begin if len(begin) == SUBJECT_LENGTH else and_(said >= begin, said < begin + _AFTER)
    return and_(found, body_value(keyword) == value)


def _of_studies(studies: Select[Any]) -> Select[Any]:
    """The rows of many Studies, each found by the index; a Study Instance UID has at most 64 characters."""
    said: ColumnElement[str] = literal_column(subject_sql("StudyInstanceUID"))
    of = studies.subquery()
    begin = of.c.StudyInstanceUID.concat('"')
    return select(AuditRow.seq).join_from(of, AuditRow, and_(said >= begin, said < begin.concat(_AFTER)))


def _by_value(keyword: str, value: str) -> tuple[ColumnElement[bool], ...]:
    said: ColumnElement[str] = literal_column(value_sql(keyword))
    return said == _until_quote(value), literal_column(holds_sql(keyword)), body_value(keyword) == value


def _by_model(asked: str) -> tuple[ColumnElement[bool], ...]:
    name, _, digest = _model_parts(asked)
    if name:
        return (*_by_value("model", name), _model(asked))
    said: ColumnElement[str] = literal_column(value_sql("weights_sha256"))
    found = said == digest if len(digest) == _DIGEST_LENGTH else and_(said >= digest, said < digest + "g")
    return found, literal_column(holds_sql("weights_sha256")), _model(asked)


def _model(asked: str) -> ColumnElement[bool]:
    name, version, digest = _model_parts(asked)
    wanted: list[ColumnElement[bool]] = []
    if name:
        wanted.append(body_value("model") == name)
    if version:
        wanted.append(body_value("model_version") == version)
    if digest:
        wanted.append(func.substr(body_value("weights_sha256"), 1, len(digest)) == digest)
    return and_(*wanted)


def _model_parts(asked: str) -> tuple[str, str, str]:
    """Name, version and digest of the weights; empty for what was not said."""
    name, at, more = asked.rpartition("@")
    if not at:
        return ("", "", asked.lower()) if _DIGEST.fullmatch(asked) else (asked, "", "")
    is_digest = len(more) >= 12 and _DIGEST.fullmatch(more) is not None
    return (name, "", more.lower()) if is_digest else (name, more, "")


def mentions(value: str) -> ColumnElement[bool]:
    """That ``value`` stands anywhere in a row's body as a text of its own: an UID in a list of sources or outputs."""
    return func.instr(AuditRow.body, canonical(value).encode("utf-8", "replace").decode()) > 0


def body_value(keyword: str) -> ColumnElement[Any]:
    """A value of the body; none where an intruder left something that is no JSON."""
    return case((func.json_valid(AuditRow.body), func.json_extract(AuditRow.body, f"$.{keyword}")))


def utc(value: str) -> str:
    """``value`` as the log writes times, so that they compare as text. Raises Permanent when it is no time."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise Permanent(f"{value!r} is not an ISO 8601 date or time") from error
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="microseconds")


def decoded(body: str) -> Any:
    """A row's body; the text itself where an intruder left no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _until_quote(value: str) -> str:
    """What an index by value holds of ``value``: its canonical JSON up to the first quote in it."""
    return canonical(value).encode("utf-8", "replace").decode()[1:].split('"', 1)[0]


def _several(value: str | Collection[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")

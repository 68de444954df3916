"""The rows and audit records of received Instances, written over the driver's own connection.

Reception is where every microsecond counts: plain SQL, prepared once by the driver's statement cache. The rows are
those of ``store.tables``; tests hold both against each other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dicomnode.audit.chain import Entry
from dicomnode.audit.events import Event
from dicomnode.receive.arrival import Examined
from dicomnode.receive.tally import OpenAssociation

_DESCRIPTIVE = ("PatientID", "AccessionNumber", "StudyDate", "StudyDescription")
_FIND_INSTANCES = "SELECT id, sha256, path, series_id, conflict, copies FROM instance WHERE SOPInstanceUID = ?"
_FIND_STUDY = "SELECT id, PatientID, AccessionNumber, StudyDate, StudyDescription FROM study WHERE StudyInstanceUID = ?"
_ADD_STUDY = (
    "INSERT INTO study (StudyInstanceUID, PatientID, AccessionNumber, StudyDate, StudyDescription, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
_DESCRIBE_STUDY = (
    "UPDATE study SET PatientID = ?, AccessionNumber = ?, StudyDate = ?, StudyDescription = ? WHERE id = ?"
)
_FIND_SERIES = (
    "SELECT id, generation, state, CallingAETitle, association_id FROM series"
    " WHERE study_id = ? AND SeriesInstanceUID = ?"
)
_STATE_OF_SERIES = "SELECT state, CallingAETitle, association_id FROM series WHERE id = ?"
_ADD_SERIES = (
    "INSERT INTO series (study_id, SeriesInstanceUID, Modality, SeriesDescription, CallingAETitle, association_id,"
    " generation, state, incomplete, first_received_at, last_received_at) VALUES (?, ?, ?, ?, ?, ?, 1, 'open', 0, ?, ?)"
)
_REOPEN_SERIES = (
    "UPDATE series SET generation = generation + 1, state = 'open', incomplete = 0, complete_by = NULL,"
    " completed_at = NULL, n_expected = NULL, asked_at = NULL WHERE id = ?"
)
_TOUCH_SERIES = "UPDATE series SET last_received_at = max(last_received_at, ?) WHERE id = ?"
_HAND_OVER_SERIES = "UPDATE series SET CallingAETitle = ?, association_id = ? WHERE id = ?"
_ADD_INSTANCE = (
    "INSERT INTO instance (series_id, association_id, SOPInstanceUID, SOPClassUID, TransferSyntaxUID, sha256, size,"
    " path, header, generation, received_at, copies, conflict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)"
)
_BEGIN_TO_STORE = "UPDATE association SET n_stored = 1 WHERE id = ? AND n_stored = 0"
_HEADER_JSON = json.JSONEncoder(separators=(",", ":"))
TOUCH_S = 0.2
"""How old what the row of a Series says of its last Instance may be while an Association brings it, in seconds. Less
than any pause that completes it; the end of the Association writes what is exact. Each time costs three pages."""
_ACTIONS = {Event.INSTANCE_STORED: "C", Event.INSTANCE_REPEATED: "R"}
"""Event Action Code (PS3.15 A.5.1): create, read (it was held already), and update for what changes what was there."""


class Kept(StrEnum):
    """What an Instance was to the node."""

    NEW = "new"
    REPEATED = "repeated"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class SpooledInstance:
    """An Instance whose file is durable; ``path`` within the spool, times in seconds since the epoch."""

    association: OpenAssociation
    examined: Examined
    TransferSyntaxUID: str
    sha256: str
    size: int
    path: str
    received_at: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """``owns_file``: a row points to the file that was just written; otherwise it is a spare copy.

    ``series_id``: the open Series that it came for, if any; ``touched``: whose row says when.
    """

    kept: Kept
    owns_file: bool
    series_id: int | None = None
    touched: bool = False


@dataclass(slots=True)
class Batch:
    """One transaction's worth of Instances. ``entries``: the audit records to append at its end.

    ``is_there``: does the spool still hold a path? ``begun``: (Association, Study) whose "begin transferring" is among
    the entries.
    """

    connection: sqlite3.Connection
    is_there: Callable[[str], bool]
    entries: list[Entry] = field(default_factory=list)
    begun: set[tuple[int, str]] = field(default_factory=set)

    def record(self, spooled: SpooledInstance) -> Recorded:
        """Write the rows of ``spooled``.

        The same SOP Instance UID with the same bytes counts as a repeat and opens nothing again; with other bytes it
        is a conflict, kept beside the first one and never analysed.
        """
        reference = spooled.examined.reference
        others = self.connection.execute(_FIND_INSTANCES, (reference.SOPInstanceUID,)).fetchall()
        study_id = self._study(spooled)
        self._begin(spooled)
        same = next((row for row in others if row[1] == spooled.sha256), None)
        if same is not None:
            return self._repeat(spooled, same)
        conflict = bool(others)
        series_id, generation, touched = self._series(study_id, spooled, extends=not conflict)
        self._add(series_id, generation, spooled, conflict=conflict)
        if not spooled.association.n_stored:
            self.connection.execute(_BEGIN_TO_STORE, (spooled.association.id,))
        event = Event.INSTANCE_CONFLICT if conflict else Event.INSTANCE_STORED
        self._audit(event, spooled, generation=generation)
        if conflict:
            return Recorded(Kept.CONFLICT, owns_file=True)
        return Recorded(Kept.NEW, owns_file=True, series_id=series_id, touched=touched)

    def _study(self, spooled: SpooledInstance) -> int:
        uid = spooled.examined.reference.StudyInstanceUID
        said = [spooled.examined.text(keyword) for keyword in _DESCRIPTIVE]
        row = self.connection.execute(_FIND_STUDY, (uid,)).fetchone()
        if row is None:
            added = self.connection.execute(_ADD_STUDY, (uid, *said, spooled.received_at))
            known, number = said, int(added.lastrowid or 0)
        else:
            number, *before = row
            known = [old or new for old, new in zip(before, said, strict=True)]
            if known != before:
                self.connection.execute(_DESCRIBE_STUDY, (*known, number))
        tally = spooled.association.tally(uid)
        if not tally.begun:
            tally.PatientID, tally.AccessionNumber = known[0], known[1]
        return int(number)

    def _series(self, study_id: int, spooled: SpooledInstance, *, extends: bool) -> tuple[int, int, bool]:
        """Id, generation, and whether its row says that something came now.

        A new Instance ``extends`` it; when it was complete, its next generation opens.
        """
        examined, uid, now = spooled.examined, spooled.examined.reference.SeriesInstanceUID, spooled.received_at
        sender = (spooled.association.CallingAETitle, spooled.association.id)
        row = self.connection.execute(_FIND_SERIES, (study_id, uid)).fetchone()
        if row is None:
            about = examined.text("Modality"), examined.text("SeriesDescription")
            added = self.connection.execute(_ADD_SERIES, (study_id, uid, *about, *sender, now, now))
            return int(added.lastrowid or 0), 1, True
        number, generation, state, *before = row
        if not extends:
            return number, generation, False
        reopened = state == "complete"
        if reopened:
            generation += 1
            self.connection.execute(_REOPEN_SERIES, (number,))
            self._audit(Event.SERIES_REOPENED, spooled, generation=generation)
        return number, generation, self._touch(number, spooled, tuple(before), at_once=reopened)

    def _touch(
        self, series_id: int, spooled: SpooledInstance, before: tuple[str, int | None], *, at_once: bool = False
    ) -> bool:
        """It has come now, from this Association; says whether its row was told.

        An index is written when its column is set, even to what it was.
        """
        sender = (spooled.association.CallingAETitle, spooled.association.id)
        known = spooled.association.touched.get(series_id)
        is_fresh = known is not None and 0.0 <= spooled.received_at - known.written < TOUCH_S
        if is_fresh and sender == before and not at_once:
            return False
        self.connection.execute(_TOUCH_SERIES, (spooled.received_at, series_id))
        if sender != before:
            self.connection.execute(_HAND_OVER_SERIES, (*sender, series_id))
        return True

    def _add(self, series_id: int, generation: int, spooled: SpooledInstance, *, conflict: bool) -> None:
        reference = spooled.examined.reference
        header = _HEADER_JSON.encode(spooled.examined.header)
        self.connection.execute(
            _ADD_INSTANCE,
            (
                series_id,
                spooled.association.id,
                reference.SOPInstanceUID,
                reference.SOPClassUID,
                spooled.TransferSyntaxUID,
                spooled.sha256,
                spooled.size,
                spooled.path,
                header,
                generation,
                spooled.received_at,
                int(conflict),
            ),
        )

    def _repeat(self, spooled: SpooledInstance, row: tuple[Any, ...]) -> Recorded:
        """The sender sends again, perhaps because it never heard Success: its Association is what counts now."""
        number, _sha256, path, series_id, conflict, copies = row
        lost_file = not self.is_there(path)
        kept_path = spooled.path if lost_file else path
        change = "UPDATE instance SET copies = copies + 1, path = ? WHERE id = ?"
        self.connection.execute(change, (kept_path, number))
        state, *before = self.connection.execute(_STATE_OF_SERIES, (series_id,)).fetchone()
        self._audit(Event.INSTANCE_REPEATED, spooled, copies=copies + 1)
        if state != "open" or conflict:
            return Recorded(Kept.REPEATED, owns_file=lost_file)
        touched = self._touch(series_id, spooled, tuple(before))
        return Recorded(Kept.REPEATED, owns_file=lost_file, series_id=series_id, touched=touched)

    def _begin(self, spooled: SpooledInstance) -> None:
        """The first Instance of a Study over this Association (PS3.15 A.5.3.3)."""
        association, study = spooled.association, spooled.examined.reference.StudyInstanceUID
        key = (association.id, study)
        if association.tally(study).begun or key in self.begun:
            return
        self.begun.add(key)
        body = transfer_body(association, study)
        self.entries.append(Entry(Event.BEGIN_TRANSFERRING, body, spooled.received_at))

    def _audit(self, event: Event, spooled: SpooledInstance, **facts: int) -> None:
        association, examined = spooled.association, spooled.examined
        reference = examined.reference
        body = {
            "association": association.id,
            "peer": association.peer,
            "CallingAETitle": association.CallingAETitle,
            "PatientID": examined.text("PatientID"),
            "AccessionNumber": examined.text("AccessionNumber"),
            "StudyInstanceUID": reference.StudyInstanceUID,
            "SeriesInstanceUID": reference.SeriesInstanceUID,
            "SOPInstanceUID": reference.SOPInstanceUID,
            "SOPClassUID": reference.SOPClassUID,
            "TransferSyntaxUID": spooled.TransferSyntaxUID,
            "sha256": spooled.sha256,
            "size": spooled.size,
            "action": _ACTIONS.get(event, "U"),
            **facts,
        }
        self.entries.append(Entry(event, body, spooled.received_at))


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a UTC time."""
    return datetime.fromtimestamp(seconds, UTC)


def transfer_body(association: OpenAssociation, study: str) -> dict[str, Any]:
    """The identifiers of "begin transferring" and "instances transferred", which have to reconcile."""
    tally = association.tally(study)
    body: dict[str, Any] = {
        "association": association.id,
        "peer": association.peer,
        "CallingAETitle": association.CallingAETitle,
    }
    if study:
        body |= {
            "StudyInstanceUID": study,
            "PatientID": tally.PatientID,
            "AccessionNumber": tally.AccessionNumber,
        }
    return body

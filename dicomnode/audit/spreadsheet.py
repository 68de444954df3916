"""Rows as CSV that a spreadsheet shows and never evaluates."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from sqlalchemy.orm import Session

from dicomnode.audit.query import AuditFilter, decoded, find_raw

_FORMULA = frozenset("=+-@\t\r\n")
COLUMNS = ("seq", "ts", "kind", "PatientID", "StudyInstanceUID", "body", "prev", "hash")


def export_csv(session: Session, wanted: AuditFilter, target: TextIO) -> int:
    """Write the rows as CSV with a header line; returns how many. Cells never start a spreadsheet formula.

    ``body`` is the stored text, so that the hashes can be computed again from the file.
    """
    return write_csv(COLUMNS, (_cells(row) for row in find_raw(session, wanted)), target)


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]], target: TextIO) -> int:
    """Write ``rows`` with a header line; returns how many."""
    writer, count = csv.writer(target), 0
    writer.writerow(columns)
    for row in rows:
        writer.writerow([inert_cell(cell) for cell in row])
        count += 1
    return count


def inert_cell(cell: Any) -> str:
    """A cell that a spreadsheet shows and never evaluates (OWASP, CSV injection)."""
    shown = str(cell).encode("utf-8", "replace").decode()
    return f"'{shown}" if shown[:1] in _FORMULA else shown


def _cells(row: dict[str, Any]) -> list[Any]:
    body = decoded(row["body"])
    found = body if isinstance(body, dict) else {}
    identifiers = {keyword: _visible(found.get(keyword, "")) for keyword in ("PatientID", "StudyInstanceUID")}
    return [{**row, **identifiers}[column] for column in COLUMNS]


def _visible(value: Any) -> str:
    """What a peer sent, with its control characters written as escapes: the export may go to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))

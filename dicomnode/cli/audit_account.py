"""``dicomnode audit patient``, ``model``, ``looked`` and ``report``."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dicomnode.audit import AuditFilter, find
from dicomnode.audit.account import RECALL_COLUMNS, Line, PatientAccount, patient_account, recall, timeline
from dicomnode.audit.mapping import looked_kinds
from dicomnode.audit.summary import lines, plain, summarised
from dicomnode.cli.audit_options import about, answer, asked, filter_options, form_option, period_options, used
from dicomnode.cli.options import config_option

PATIENT_COLUMNS = ("seq", "time (UTC)", "to", "times", "event", "StudyInstanceUID", "about")
REPORT_COLUMNS = ("part", "what", "number")
LOOKED_COLUMNS = ("seq", "time (UTC)", "user", "event", "command", "asked for", "result")


@click.command()
@config_option
@click.argument("patient_id")
@form_option
def patient(config_path: Path | None, patient_id: str, form: str) -> None:
    """Everything about a patient, in order: images, analyses, results, deliveries, and who looked."""
    _, store = used(config_path, "patient", {"patient": patient_id})
    with store.read() as session:
        account = patient_account(session, patient_id)
    whole = {
        "patient": account.patient,
        "studies": account.studies,
        "rows": account.rows,
        "looked": account.looked,
    }
    answer(form, PATIENT_COLUMNS, _timeline(account), whole)


def _timeline(account: PatientAccount) -> Iterator[tuple[Any, ...]]:
    rows = {row["seq"]: row for row in (*account.rows, *account.looked)}
    for line in timeline(rows[seq] for seq in sorted(rows)):
        body = line.first["body"] if isinstance(line.first["body"], dict) else {}
        to = line.last["ts"][:23] if line.count > 1 else ""
        study = body.get("StudyInstanceUID", "")
        yield line.first["seq"], line.first["ts"][:23], to, line.count, line.first["kind"], study, _told(line, body)


def _told(line: Line, body: dict[str, Any]) -> str:
    hidden = {"PatientID": "", "StudyInstanceUID": ""} | ({"SOPInstanceUID": ""} if line.count > 1 else {})
    return about({**body, **hidden} if body else line.first["body"])


@click.command()
@config_option
@click.argument("model_name", metavar="NAME[@VERSION]|SHA256")
@period_options
@form_option
def model(config_path: Path | None, model_name: str, form: str, since: str | None, until: str | None) -> None:
    """Everything a model touched, for a recall: patients, studies, results, and where these went."""
    filters = {"model": model_name, "since": since, "until": until}
    _, store = used(config_path, "model", filters)
    with store.read() as session:
        found = list(recall(session, model_name, since, until))
    answer(form, RECALL_COLUMNS, ([_cell(row[name]) for name in RECALL_COLUMNS] for row in found), found)


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_state(place)}" for name, place in value.items())
    return "" if value is None else value


def _state(place: dict[str, Any]) -> str:
    states = ", ".join(f"{count} {state}" for state, count in sorted(place["states"].items()))
    at = place["delivered_at"]
    return f"{states} ({datetime.fromtimestamp(at, UTC).isoformat(timespec='seconds')})" if at else states


@click.command()
@config_option
@click.option("--user", help="Only this account.")
@click.option("--limit", type=int, default=1000, show_default=True, help="At most so many, the newest.")
@period_options
@form_option
def looked(
    config_path: Path | None, form: str, user: str | None, limit: int, since: str | None, until: str | None
) -> None:
    """Who looked: everybody who read, verified or exported the log, or saw or took images or data."""
    _, store = used(config_path, "looked", {"user": user, "since": since, "until": until})
    wanted = AuditFilter(event=looked_kinds(), user=user, since=since, until=until, limit=limit)
    with store.read() as session:
        rows = list(find(session, wanted))
    answer(form, LOOKED_COLUMNS, (_looked(row) for row in rows), rows)


def _looked(row: dict[str, Any]) -> tuple[Any, ...]:
    body = row["body"] if isinstance(row["body"], dict) else {}
    who = str(body.get("user") or body.get("peer") or body.get("address") or "not recorded")
    who += f" (as {body['run_as']})" if body.get("run_as") else ""
    filters = body.get("filters")
    wanted = "  ".join(f"{key}={value}" for key, value in filters.items()) if isinstance(filters, dict) else ""
    result = "" if body.get("ok") is None else "ok" if body["ok"] else "not ok"
    return row["seq"], row["ts"][:23], who, row["kind"], body.get("command", ""), wanted, result


@click.command()
@config_option
@filter_options
@form_option
def report(config_path: Path | None, form: str, **filters: Any) -> None:
    """An account of all rows, or of those that fit: what came, which model said what, what was amiss, who looked."""
    config, store = used(config_path, "report", filters)
    with store.read() as session:
        found = summarised(find(session, asked(config, **filters)))
    answer(form, REPORT_COLUMNS, lines(found), plain(found))


ACCOUNT_COMMANDS = (patient, model, looked, report)

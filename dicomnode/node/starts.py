"""What a start records: itself, and what is not as it was at the start before (trust.md A3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.store.tables import AuditRow

LOOK_BACK = 100
"""Starts among which the last one of the same roles is looked for."""


def record_start(session: Session, body: Mapping[str, Any]) -> None:
    """Append "application start" with ``body``, and a row for a changed configuration and for changed models.

    ``body`` has ``roles``, ``config_sha256`` and ``models`` (name to weights SHA-256). The first start changes nothing.
    """
    before = _last_start(session, body["roles"])
    append(session, Event.APPLICATION_START, body)
    if before is None:
        return
    roles = {"roles": body["roles"]}
    if before.get("config_sha256") != body["config_sha256"]:
        change = {"before": before.get("config_sha256"), "after": body["config_sha256"]}
        append(session, Event.CONFIGURATION_CHANGED, roles | change)
    models = _changed(before.get("models") or {}, body["models"])
    if models:
        append(session, Event.MODEL_CHANGED, roles | {"models": models})


def _last_start(session: Session, roles: list[str]) -> dict[str, Any] | None:
    of_kind = select(AuditRow.body).where(AuditRow.kind == Event.APPLICATION_START)
    for text in session.scalars(of_kind.order_by(AuditRow.seq.desc()).limit(LOOK_BACK)):
        try:
            body = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            continue
        if isinstance(body, dict) and body.get("roles") == roles:
            return body
    return None


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, dict[str, str | None]]:
    """Model to its weights SHA-256 before and after, None where it is not used."""
    names = sorted({*before, *after})
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in names
        if before.get(name) != after.get(name)
    }

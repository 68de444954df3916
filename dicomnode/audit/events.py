"""The kinds of audit rows, after PS3.15 A.5.3 where it has an event, else our own."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """``kind`` of an audit row."""

    APPLICATION_START = "application start"
    APPLICATION_STOP = "application stop"
    AUDIT_LOG_USED = "audit log used"
    BEGIN_TRANSFERRING = "begin transferring"
    INSTANCES_TRANSFERRED = "instances transferred"
    INSTANCE_STORED = "instance stored"
    INSTANCE_REPEATED = "instance repeated"
    INSTANCE_CONFLICT = "instance conflict"
    SECURITY_ALERT = "security alert"
    SERIES_COMPLETE = "series complete"
    SERIES_REOPENED = "series reopened"
    ROUTED = "routed"
    NOT_ANALYSED = "not analysed"
    INFERENCE = "inference"
    STAND_INS = "stand-ins made"
    STATUS_PAGE = "status page"
    DELIVERED = "delivered"
    DELIVERY_FAILED = "delivery failed"
    COMMITMENT_REQUESTED = "commitment requested"
    COMMITTED = "committed"
    COMMITMENT_FAILED = "commitment failed"
    FELL_BACK = "fell back"
    DRIFT = "drift"
    DRIFT_ENDED = "drift ended"
    DEAD_LETTER = "dead letter"
    REQUEUED = "requeued by hand"
    NODE_RECOVERED = "node recovered"
    STUDY_DELETED = "study deleted"
    CLOCK_CHANGED = "clock changed"
    BACKUP = "backup"
    RESTORED = "restored"

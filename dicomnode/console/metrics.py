"""The status as Prometheus text (version 0.0.4). Labels are states, kinds and peer names, never patient data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

METRICS = {
    "dicomnode_instances_received": "Instances in the database, conflicting copies included.",
    "dicomnode_instance_conflicts": "Instances whose SOP Instance UID came before with other bytes.",
    "dicomnode_open_associations": "Inbound associations at present.",
    "dicomnode_series": "Series by state.",
    "dicomnode_outcomes": "Assignments by outcome.",
    "dicomnode_not_analysed": "Assignments that were not analysed, by what refused them.",
    "dicomnode_jobs": "Jobs by kind and state.",
    "dicomnode_instances_refused": "C-STORE requests answered with a failure, in associations on record.",
    "dicomnode_queue": "Jobs that wait, by kind: due now, or later (their last attempt failed).",
    "dicomnode_queue_oldest_seconds": "Age of the oldest job that waits, by kind.",
    "dicomnode_stage_seconds": "Seconds of each stage from the last instance received to the last object delivered.",
    "dicomnode_deliveries": "Derived Instances by destination and state.",
    "dicomnode_commitments": "Delivered Instances by destination and storage commitment.",
    "dicomnode_drift_watched": "Strata (sender, scanner, protocol, model) whose scores are compared with their first.",
    "dicomnode_drift_alarms": "Measures that have drifted, by sender, detector and stratum.",
    "dicomnode_certificate_days_left": "Days until a certificate of the node ends, negative when it has ended.",
    "dicomnode_audit_copy_behind": "Audit rows that the audit record repository has not got yet.",
    "dicomnode_disk_free_bytes": "Free space on the file system of the spool, in bytes.",
    "dicomnode_process_alive": "1 for each process of the node that is alive.",
}
"""Every metric and its help text; ``docs/operators.md`` lists them."""

HISTOGRAMS = frozenset({"dicomnode_stage_seconds"})

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def prometheus(status: dict[str, Any]) -> str:
    """The status as metrics text."""
    received = status["received"]
    samples: dict[str, list[tuple[dict[str, str], float]]] = {
        "dicomnode_instances_received": [({}, received["instances"])],
        "dicomnode_instance_conflicts": [({}, received["conflicts"])],
        "dicomnode_open_associations": [({}, received["open_associations"])],
        "dicomnode_series": [({"state": state}, count) for state, count in status["series"].items()],
        "dicomnode_outcomes": [({"outcome": outcome}, count) for outcome, count in status["outcomes"].items()],
        "dicomnode_not_analysed": [({"gate": gate}, count) for gate, count in status["not_analysed"].items()],
        "dicomnode_jobs": list(_nested(status["jobs"], "kind")),
        "dicomnode_instances_refused": [({}, received["refused"])],
        "dicomnode_queue": [
            ({"kind": kind, "when": when}, queue[when])
            for kind, queue in status["queues"].items()
            for when in ("due", "later")
        ],
        "dicomnode_queue_oldest_seconds": [
            ({"kind": kind}, queue["oldest_s"]) for kind, queue in status["queues"].items()
        ],
        "dicomnode_deliveries": list(_nested(status["deliveries"], "destination")),
        "dicomnode_commitments": list(_nested(status["commitments"], "destination")),
        "dicomnode_drift_watched": [({}, status["drift"]["watched"])],
        "dicomnode_drift_alarms": list(_drifted(status["drift"]["alarms"])),
        "dicomnode_certificate_days_left": [
            ({"setting": one["setting"]}, one["days_left"]) for one in status["certificates"] if "days_left" in one
        ],
        "dicomnode_audit_copy_behind": [
            ({"place": copy["place"]}, copy["behind"]) for copy in (status["audit_copy"],) if copy
        ],
        "dicomnode_disk_free_bytes": [({}, status["disk"]["free_bytes"])],
        "dicomnode_process_alive": [
            ({"role": item["role"], "owner": item["owner"]}, float(item["alive"])) for item in status["processes"]
        ],
    }
    lines = []
    for name, text in METRICS.items():
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {'histogram' if name in HISTOGRAMS else 'gauge'}"]
        if name in HISTOGRAMS:
            lines += _histogram(name, "stage", status["stages"])
        else:
            lines += [f"{name}{_labels(labels)} {value:g}" for labels, value in samples[name]]
    return "\n".join(lines) + "\n"


def _nested(counts: dict[str, dict[str, int]], label: str) -> Iterable[tuple[dict[str, str], float]]:
    for key, states in counts.items():
        for state, count in states.items():
            yield {label: key, "state": state}, float(count)


def _histogram(name: str, label: str, series: dict[str, Any]) -> Iterable[str]:
    """Cumulative buckets, sum and count of each of ``series``."""
    for key, one in series.items():
        so_far = 0
        for bound, count in one["buckets"].items():
            so_far += count
            yield f"{name}_bucket{_labels({label: key, 'le': bound})} {so_far}"
        yield f"{name}_sum{_labels({label: key})} {one['seconds']:.6g}"
        yield f"{name}_count{_labels({label: key})} {one['n']}"


def _drifted(alarms: list[dict[str, Any]]) -> Iterable[tuple[dict[str, str], float]]:
    for item in alarms:
        labels = {"sender": item["CallingAETitle"], "detector": item["detector"], "stratum": item["stratum"]}
        yield labels, float(len(item["alarms"]))


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items()) + "}"

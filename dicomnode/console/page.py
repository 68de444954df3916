"""The overview page for operators: plain HTML, no script, refreshed by the browser. Everything is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any

from dicomnode.console.status import troubles
from dicomnode.store.stages import STAGES

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--ok:#1a7f37;--bad:#c62828;--wait:#9a6700}
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p.notice{font-weight:600;margin:.2rem 0 1rem;opacity:.75}
p.alarm,p.calm{border-left:.3rem solid var(--bad);background:#c6282818;padding:.5rem .8rem;margin:0 0 1rem;
font-weight:600}
p.calm{border-color:var(--ok);background:#1a7f3714}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);
vertical-align:top}th{font-weight:600}td.when{white-space:nowrap}code{font-size:.85em}
td.uid{font:12px/1.45 ui-monospace,monospace;word-break:break-all}
.findings,.failed,.silent{color:var(--bad);font-weight:600}
.pending,.waiting,.warning,.replaced,.not{color:var(--wait)}
.delivered,.yes{color:var(--ok)}.tiles{display:flex;flex-wrap:wrap;gap:.6rem}
.tile{border:1px solid var(--line);border-radius:.4rem;padding:.5rem .9rem}.tile b{display:block;font-size:1.3rem}
"""


def overview(status: dict[str, Any]) -> str:
    """The whole page."""
    node = status["node"]
    body = [
        f"<h1>{escape(node['ae_title'])}</h1>",
        f"<p class=notice>{escape(node['notice'])} · dicomnode {escape(node['software_version'])}</p>",
        _alarm(status),
        _tiles(status),
        "<h2>Series</h2>",
        _series(status["recent"]),
        _stages(status["stages"]),
        "<h2>Tried again</h2>",
        _retrying(status["retrying"]),
        "<h2>Dead letters</h2>",
        _dead(status["dead_letters"]),
        _drift(status["drift"]),
        "<h2>Processes</h2>",
        _processes(status["processes"]),
    ]
    head = f"<meta charset=utf-8><meta http-equiv=refresh content=5><title>dicomnode</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>"


def _alarm(status: dict[str, Any]) -> str:
    """What somebody has to look at, before any number."""
    found = troubles(status)
    if found:
        return f"<p class=alarm>{escape(' · '.join(found))}</p>"
    return "<p class=calm>Every process is alive, no dead letters.</p>"


def _drift(drift: dict[str, Any]) -> str:
    """Scores that have moved away from the first ones of their sender, scanner, protocol and model."""
    if not drift["alarms"]:
        return ""
    rows = []
    for item in drift["alarms"]:
        words = "; ".join(f"{name}: {text}" for name, text in item["alarms"].items())
        cells = (item["CallingAETitle"], item["detector"], item["stratum"], words)
        rows.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return "<h2>Drift</h2>" + _table(("From", "Detector", "Stratum", "What has moved"), rows)


def _tiles(status: dict[str, Any]) -> str:
    tiles = {**status["received"], **status["outcomes"]}
    tiles["GB free"] = round(status["disk"]["free_bytes"] / 1e9)
    cells = (f"<div class=tile><b>{value}</b>{escape(key.replace('_', ' '))}</div>" for key, value in tiles.items())
    return f"<div class=tiles>{''.join(cells)}</div>"


def _series(recent: list[dict[str, Any]]) -> str:
    rows = [_series_row(item, result) for item in recent for result in item["results"] or [{}]]
    head = (
        "Received (UTC)",
        "Modality",
        "Study Instance UID",
        "From",
        "Images",
        "Outcome",
        "Score",
        "Detector",
        "Delivered",
    )
    return _table(head, rows) if rows else "<p>Nothing has arrived yet.</p>"


def _series_row(item: dict[str, Any], result: dict[str, Any]) -> str:
    outcome = result.get("outcome", "waiting: more images" if item["state"] == "open" else "waiting for its route")
    score = result.get("score")
    threshold = result.get("threshold")
    shown = f"{score:.3f} (threshold {threshold:.3f})" if score is not None and threshold is not None else ""
    detector = " ".join(str(result[key]) for key in ("detector", "model_version") if result.get(key))
    style = outcome.split()[0].rstrip(":")
    gate = f" by the {result['gate']} gate" if result.get("gate") else ""
    reason = f"{gate}, because {result.get('reason', '')}" if outcome in ("not analysed", "failed") else ""
    notes = f", generation {result['generation']}" if result.get("generation", 1) > 1 else ""
    notes += ", incomplete" if item["incomplete"] else ""
    received = datetime.fromtimestamp(item["last_received_at"], UTC).strftime("%Y-%m-%d<br>%H:%M:%S")
    cells = (
        f"<td class=when>{received}</td><td>{escape(item['Modality'])}</td>"
        f"<td class=uid>{escape(item['StudyInstanceUID'])}</td>"
        f"<td>{escape(item['CallingAETitle'])}</td><td>{item['instances']}</td>"
        f"<td><span class='{escape(style)}'>{escape(outcome)}</span>{escape(reason + notes)}</td>"
        f"<td>{shown}</td><td>{escape(detector)}</td><td>{_sent(result)}</td>"
    )
    return f"<tr>{cells}</tr>"


def _sent(result: dict[str, Any]) -> str:
    """Per destination how many objects are in which state; without a result the only object is a status page."""
    what = " (status page)" if result.get("outcome") in ("not analysed", "failed") else ""
    return ", ".join(
        f"{escape(peer)}: <span class={escape(state)}>{count} {escape(state)}</span>{what}"
        for peer, states in result.get("objects", {}).items()
        for state, count in states.items()
    )


def _stages(stages: dict[str, Any]) -> str:
    """How long each stage takes; nothing before the first result."""
    rows = [
        f"<tr><td>{escape(name)}</td><td>{escape(STAGES[name])}</td><td>{one['n']}</td>"
        f"<td>{_seconds(one['p50'])}</td><td>{_seconds(one['p95'])}</td></tr>"
        for name, one in stages.items()
    ]
    head = ("Stage", "From, to", "Times", "p50 of the newest", "p95")
    return f"<h2>How long it takes</h2>{_table(head, rows)}" if rows else ""


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _retrying(jobs: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td>{item['job']}</td><td>{escape(item['kind'])}</td><td>{escape(item['destination'] or '')}</td>"
        f"<td>{item['attempts']}</td><td>{escape(item['reason'])}</td></tr>"
        for item in jobs
    ]
    return _table(("Job", "Kind", "Destination", "Attempts", "Reason"), rows) if rows else "<p>Nothing.</p>"


def _dead(letters: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td>{item['job']}</td><td>{escape(item['kind'])}</td><td>{escape(item['reason'])}</td>"
        f"<td><code>dicomnode jobs requeue {item['job']}</code></td></tr>"
        for item in letters
    ]
    return _table(("Job", "Kind", "Reason", "Try again"), rows) if rows else "<p>None.</p>"


def _processes(processes: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td>{escape(item['role'])}</td><td>{escape(item['owner'])}</td><td>{item['pid']}</td>"
        f"<td>{'<span class=yes>alive</span>' if item['alive'] else '<span class=silent>silent</span>'}</td></tr>"
        for item in processes
    ]
    return _table(("Role", "Process", "PID", ""), rows)


def _table(head: tuple[str, ...], rows: list[str]) -> str:
    cells = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{cells}</tr>{''.join(rows)}</table>"

"""Parameters with their defaults, from the classes that hold them."""

from __future__ import annotations

import dataclasses
from typing import Any

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel

from dicomnode.assemble import asking, finding
from dicomnode.config import AssembleSettings, FolderPeer, NodeSettings, Peer, ReceiveSettings, ResultSettings, StowPeer
from dicomnode.config.tls import ReceiveTls
from dicomnode.deliver import (
    association,
    back_off,
    commit_ledger,
    commit_plan,
    commit_scu,
    ledger,
    stow,
    worker,
)
from dicomnode.dicom.commitment import MAX_REPORT_BYTES
from dicomnode.dicom.header import HeaderLimits
from tests.docs_conformance.markdown import table

_NODE = ("ae_title", "host", "port", "uid_root")
_PEER = ("ae_title", "host", "port", "may_send", "tls", "commit", "addresses", "certificate")


def sections() -> dict[str, str]:
    """The tables of this module."""
    return {"configurable-parameters": _configurable(), "fixed-parameters": _fixed()}


def _configurable() -> str:
    rows = [
        *_fields("node", NodeSettings, _NODE),
        *_fields("receive", ReceiveSettings),
        *_fields("receive.tls", ReceiveTls),
        *_fields("assemble", AssembleSettings),
        *_fields("[peer]", Peer, _PEER),
        *_fields("[peer] by STOW-RS", StowPeer, ("stow", "token_file", "token_env", "tls")),
        *_fields("[peer] as a folder", FolderPeer, ("folder",)),
        *_fields("results", ResultSettings, ("profile", "objects", "status", "banner")),
    ]
    return table(("parameter", "default", "range"), rows)


def _fields(name: str, model: type[BaseModel], only: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
    return [
        (f"`{name}.{key}`", "required" if field.is_required() else _default(field.default), _range(field.metadata))
        for key, field in model.model_fields.items()
        if not only or key in only
    ]


def _default(value: Any) -> str:
    return "not set" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _range(metadata: list[Any]) -> str:
    signs = {Ge: "≥", Gt: ">", Le: "≤"}
    bounds = [
        f"{signs[type(one)]} {next(iter(dataclasses.asdict(one).values()))}" for one in metadata if type(one) in signs
    ]
    return ", ".join(bounds)


def _fixed() -> str:
    limits, tries, header = association.SendLimits(), back_off.BackOff(), HeaderLimits()
    reply = f"{limits.dimse_s:g} s, and what the size needs at {limits.slowest_bytes_s / 1024:g} KiB/s"
    pause = f"random up to {tries.base_s:g} s, doubled each time, at most {tries.cap_s:g} s"
    again = f"after {asking.ASK_AGAIN_S:g} s at the earliest, and only when Instances came since"
    bounds = f"{header.elements:,} elements, {header.depth} levels, {header.inflated_bytes // 2**20} MiB inflated"
    rows = [
        ("Storage SCU: TCP connection", f"{limits.connect_s:g} s"),
        ("Storage SCU: A-ASSOCIATE and A-RELEASE response", f"{limits.acse_s:g} s"),
        ("Storage SCU: C-STORE response", reply),
        ("Storage SCU: peer reads nothing while we write", f"{limits.stall_s:g} s"),
        ("Storage SCU: largest PDU that we receive", f"{limits.max_pdu} bytes"),
        ("Storage SCU: destinations served at a time", f"{worker.PARALLEL}, each by one Association"),
        ("Storage SCU: back-off between attempts", pause),
        ("Storage SCU: given up after", f"{tries.give_up_after_s / back_off.DAY_S:g} days"),
        ("Storage SCU: attempts in which a lost batch goes out whole", f"{ledger.WHOLE_AGAIN}"),
        ("Storage commitment: report awaited on the same Association", f"{commit_scu.LINGER_S:g} s"),
        ("Storage commitment: asked again without a report after", f"{commit_ledger.ANSWER_S:g} s"),
        ("Storage commitment: Instance given up after", f"{commit_plan.MAX_ROUNDS} failures in a row"),
        ("Storage commitment: largest report that we read", f"{MAX_REPORT_BYTES // 2**20} MiB"),
        ("STOW-RS: Instances in one request", f"{stow.MAX_INSTANCES}, and {stow.MAX_BYTES // 2**20} MiB"),
        ("Query SCU: every step", f"{finding.TIMEOUT_S:g} s"),
        ("Query SCU: same Series asked again", again),
        ("Query SCU: peer that did not answer", f"left alone for {asking.SILENT_SENDER_S:g} s"),
        ("Storage SCP: header of one Instance", bounds),
    ]
    return table(("parameter", "value"), rows)

"""``doctor``: what is wrong with this node, and how to mend it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from dicomnode.audit import verify
from dicomnode.audit.signing import SigningKey
from dicomnode.config import Destination, Peer, Route
from dicomnode.config.outside import Export, Remote
from dicomnode.detectors.discovery import discover
from dicomnode.errors import DicomNodeError
from dicomnode.node.build import Blueprint
from dicomnode.node.peer_checks import check_peer
from dicomnode.node.tls_checks import check_secrets_and_tls
from dicomnode.sandbox import Walls, walls
from dicomnode.store.schema import MEND, check_restored, check_schema, check_triggers
from dicomnode.store.snapshot import damage

Level = Literal["ok", "warning", "fault"]


_MEND = {
    "disk": "make the folder, or let the user that runs the node write there",
    "database": f"{MEND}; a newer schema needs the newer dicomnode",
    "checkpoints": "make a key with dicomnode audit key FILE, or correct its path or mode",
    "detectors": "correct this line (dicomnode detectors list names the detectors) or install the plugin",
    "models": "correct this line (dicomnode models list names the models) or add the model to node.model_dir",
    "reader": "the node cannot start processes of its own: look at the limits of its service or container",
    "accelerator": 'repair the driver, or set node.accelerator to "auto" or "cpu"',
}
"""How to mend what stops a whole check."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One check. ``mend``: what the operator can do, empty when all is well."""

    check: str
    level: Level
    found: str
    mend: str = ""


def diagnose(blueprint: Blueprint) -> Iterable[Diagnosis]:
    """Run every check; a check that cannot run is itself a fault."""
    checks: tuple[Callable[[Blueprint], Iterable[Diagnosis]], ...] = (
        _configuration,
        _disk,
        _database,
        _checkpoints,
        _detectors,
        _models,
        _accelerator,
        _reader,
        _tls,
        _deid,
        _ports,
        _peers,
    )
    for check in checks:
        try:
            yield from check(blueprint)
        except (DicomNodeError, OSError) as error:
            name = check.__name__.strip("_")
            yield Diagnosis(name, "fault", str(error), _MEND.get(name, "mend what is named here and run doctor again"))


def _configuration(blueprint: Blueprint) -> Iterable[Diagnosis]:
    config = blueprint.config
    yield Diagnosis("configuration", "ok", f"{blueprint.source.name}, SHA-256 {blueprint.source.sha256[:16]}…")
    if not config.route and not config.deid.remote:
        yield Diagnosis(
            "routes", "warning", "no route is configured", "add a [[route]]; until then nothing is analysed"
        )
    if not any(peer.may_send for peer in config.entities) and not config.receive.accept_unknown_peers:
        yield Diagnosis("peers", "warning", "no peer may send", "set may_send = true for the scanners and the PACS")
    if config.receive.accept_unknown_peers:
        mend = "name the senders as [[peer]] and set receive.accept_unknown_peers = false"
        yield Diagnosis("peers", "warning", "unknown peers may send", mend)


def _disk(blueprint: Blueprint) -> Iterable[Diagnosis]:
    free, least = blueprint.spool().free_bytes(), blueprint.config.receive.min_free_bytes
    found = f"{free / 1e9:.1f} GB free at {blueprint.config.node.data_dir}"
    if free < least:
        yield Diagnosis("disk", "fault", found, f"free some space: intake stops below {least / 1e9:.1f} GB")
    else:
        yield Diagnosis("disk", "ok", found)


def _database(blueprint: Blueprint) -> Iterable[Diagnosis]:
    store = blueprint.store()
    if not store.path.exists():
        yield Diagnosis("database", "warning", f"{store.path} does not exist yet", "dicomnode serve creates it")
        return
    check_restored(store)
    check_schema(store)
    check_triggers(store)
    with store.read() as session:
        answer = "; ".join(damage(session)) or "ok"
        verdict = verify(session)
    store.close()
    if answer == "ok":
        yield Diagnosis("database", "ok", f"{store.path}: integrity check ok")
    else:
        yield Diagnosis("database", "fault", f"{store.path}: {answer}", MEND)
    if verdict.ok:
        yield Diagnosis("audit log", "ok", f"{verdict.rows} rows, the chain holds")
    else:
        yield Diagnosis("audit log", "fault", f"row {verdict.first_bad}: {verdict.reason}", "tell the security officer")


def _checkpoints(blueprint: Blueprint) -> Iterable[Diagnosis]:
    audit = blueprint.config.audit
    if audit.signing_key_file is not None:
        yield Diagnosis("checkpoints", "ok", f"signed by key {SigningKey.load(audit.signing_key_file).public.id}")
    elif audit.places:
        mend = "make a key with dicomnode audit key FILE and name it in audit.signing_key_file"
        yield Diagnosis("checkpoints", "warning", "checkpoints of the audit log are not signed", mend)


def _detectors(blueprint: Blueprint) -> Iterable[Diagnosis]:
    found = discover(blueprint.config.hosted)
    for name, reason in found.broken.items():
        mend = "repair or uninstall this plugin; of a hosted model: mend its section in the configuration"
        yield Diagnosis(f"detector {name}", "fault", reason, mend)
    blueprint.detectors()
    yield Diagnosis("detectors", "ok", ", ".join(sorted(found.detectors)))


def _models(blueprint: Blueprint) -> Iterable[Diagnosis]:
    registry = blueprint.registry()
    for folder, reason in registry.broken().items():
        yield Diagnosis(f"model {folder}", "fault", reason, "restore the model folder from its source")
    for model in registry.list():
        found = f"version {model.card.version}, SHA-256 {model.card.sha256[:16]}… as its card says"
        yield Diagnosis(f"model {model.name}", "ok", found)
    blueprint.check_models(blueprint.detectors())


def _accelerator(blueprint: Blueprint) -> Iterable[Diagnosis]:
    from dicomnode.detect.warm import accelerator_for

    yield Diagnosis("accelerator", "ok", accelerator_for(blueprint.config.node.accelerator))


def _reader(blueprint: Blueprint) -> Iterable[Diagnosis]:
    del blueprint
    yield told_of_walls(walls())


def told_of_walls(found: Walls) -> Diagnosis:
    """What keeps those who read received files from everything else."""
    missing = [name for name, stands in (("seccomp", found.seccomp), ("Landlock", found.landlock)) if not stands]
    if not missing:
        return Diagnosis("reader", "ok", "confined by seccomp and Landlock, and in memory, time and descriptors")
    mend = "run it on Linux 5.13 or newer with Landlock among its security modules, on x86-64 or aarch64"
    return Diagnosis("reader", "warning", f"not confined by {' nor '.join(missing)}, only by the other limits", mend)


def _tls(blueprint: Blueprint) -> Iterable[Diagnosis]:
    for one in check_secrets_and_tls(blueprint.config):
        yield Diagnosis(one.check, one.level, one.found, one.mend)


def _deid(blueprint: Blueprint) -> Iterable[Diagnosis]:
    gate = blueprint.gate()
    if gate is None:
        return
    rows = "no vault" if gate.vault is None else f"{len(gate.vault)} rows in the vault"
    gate.close()
    yield Diagnosis("de-identification", "ok", f"project key {gate.key.id}, {rows}")


def _ports(blueprint: Blueprint) -> Iterable[Diagnosis]:
    node, tls = blueprint.config.node, blueprint.config.receive.tls
    ports = [("node.console_port", node.console_host, node.console_port)]
    ports += [("node.port", node.host, node.port)] if tls is None or tls.plain else []
    ports += [("receive.tls.port", node.host, tls.port)] if tls is not None else []
    for name, host, port in ports:
        if port == 0:
            yield Diagnosis(name, "ok", f"{host}: a free port, taken at every start anew")
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                mend = "it is this node, if it is running; otherwise end that program or choose another port"
                yield Diagnosis(name, "warning", f"{host}:{port} is taken ({error.strerror})", mend)
                continue
        yield Diagnosis(name, "ok", f"{host}:{port} is free")


def _peers(blueprint: Blueprint) -> Iterable[Diagnosis]:
    for peer in blueprint.config.peer:
        check, name = check_peer(peer, blueprint.config.node.ae_title), f"peer {peer.name}"
        if check.ok:
            yield Diagnosis(name, "ok", check.found)
        elif _gets_results(blueprint, peer):
            yield Diagnosis(name, "warning" if check.ok is None else "fault", check.found, check.mend)
        else:
            mend = "no results go there, it only sends: a scanner need not answer"
            yield Diagnosis(name, "warning", check.found, mend if isinstance(peer, Peer) else check.mend)


def _gets_results(blueprint: Blueprint, peer: Destination) -> bool:
    config = blueprint.config
    rules: tuple[Route | Export | Remote, ...] = (*config.route, *config.deid.export, *config.deid.remote)
    named = {name for rule in rules for name in rule.send_to} | {remote.peer for remote in config.deid.remote}
    return peer.name in named or ("sender" in named and isinstance(peer, Peer) and peer.may_send)

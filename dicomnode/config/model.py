"""The settings, one class per table of ``conf/dicomnode.toml``; frozen, unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from dicomnode.config.audit import AuditSettings
from dicomnode.config.deid import DeidSettings
from dicomnode.config.detect import DetectSettings
from dicomnode.config.gates import DriftSettings, GateSettings
from dicomnode.config.hosted import Hosted, HostedName
from dicomnode.config.outside import Export, Remote
from dicomnode.config.peers import AETitle, Destination, Peer
from dicomnode.config.results import ResultSettings
from dicomnode.config.retention import RetentionSettings
from dicomnode.config.rules import Condition, Keyword, not_empty
from dicomnode.config.table import Table
from dicomnode.config.tls import ReceiveTls

_UID_ROOT = r"^[0-2](\.(0|[1-9][0-9]*))+$"

AnyPort = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class NodeSettings(Table):
    """``[node]``: who and where this node is."""

    ae_title: AETitle = "DICOMNODE"
    host: str = "0.0.0.0"  # noqa: S104 - a PACS has to reach the node; unknown peers are refused
    port: AnyPort = 11112
    data_dir: Path = Path("var")
    database: str = ""
    accelerator: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    uid_root: Annotated[str, Field(pattern=_UID_ROOT, max_length=40)] = "2.25"
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    model_dir: Path | None = None
    console_host: str = "127.0.0.1"
    console_port: AnyPort = 8105

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in force: ``database``, or SQLite in ``data_dir``."""
        return self.database or f"sqlite:///{self.data_dir.resolve() / 'dicomnode.sqlite3'}"


class ReceiveSettings(Table):
    """``[receive]``: limits of the Storage SCP."""

    processes: Annotated[int, Field(ge=0, le=16)] = 0
    max_associations: Annotated[int, Field(ge=1, le=1000)] = 25
    max_associations_per_peer: Annotated[int, Field(ge=0, le=1000)] = 0
    max_instance_bytes: Annotated[int, Field(ge=1024 * 1024)] = 4 * 1024**3
    max_pdu: Annotated[int, Field(ge=4096, le=4 * 1024 * 1024)] = 131072
    accept_unknown_peers: bool = False
    min_free_bytes: Annotated[int, Field(ge=0)] = 2 * 1024**3
    journal_mb: Annotated[int, Field(ge=0, le=16384)] = 64
    pdu_timeout_s: Seconds = 15.0
    acse_timeout_s: Seconds = 15.0
    dimse_timeout_s: Seconds = 60.0
    network_timeout_s: Seconds = 60.0
    tls: ReceiveTls | None = None


class AssembleSettings(Table):
    """``[assemble]``: when a Series is taken as complete."""

    quiet_period_s: Seconds = 60.0
    max_wait_s: Seconds = 900.0
    settle_s: Annotated[float, Field(ge=0)] = 2.0
    use_c_find: bool = True

    @model_validator(mode="after")
    def _order(self) -> AssembleSettings:
        if self.max_wait_s < self.quiet_period_s:
            raise ValueError("max_wait_s is shorter than quiet_period_s")
        return self


class Route(Table):
    """``[[route]]``: which Series goes to which detector, and where the results go."""

    name: Annotated[str, Field(min_length=1)]
    when: Annotated[dict[Keyword, Condition], AfterValidator(not_empty)]
    detector: Annotated[str, Field(min_length=1)]
    model: str | None = None
    send_to: Annotated[tuple[str, ...], Field(min_length=1)]
    priority: int = 0


class Config(Table):
    """The whole configuration."""

    node: NodeSettings = NodeSettings()
    receive: ReceiveSettings = ReceiveSettings()
    assemble: AssembleSettings = AssembleSettings()
    detect: DetectSettings = DetectSettings()
    peer: tuple[Destination, ...] = ()
    route: tuple[Route, ...] = ()
    hosted: dict[HostedName, Hosted] = Field(default_factory=dict)
    results: ResultSettings = ResultSettings()
    gates: GateSettings = GateSettings()
    drift: DriftSettings = DriftSettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()
    deid: DeidSettings = DeidSettings()

    @model_validator(mode="after")
    def _reserve_is_above_the_limit_of_reception(self) -> Config:
        if 0 < self.retention.reserve_bytes <= self.receive.min_free_bytes:
            raise ValueError("retention.reserve_bytes is not above receive.min_free_bytes: intake would stop first")
        return self

    @property
    def entities(self) -> tuple[Peer, ...]:
        """The peers that speak DIMSE: application entities."""
        return tuple(peer for peer in self.peer if isinstance(peer, Peer))

    def peer_named(self, name: str) -> Destination | None:
        """The peer of this name, or None."""
        return next((peer for peer in self.peer if peer.name == name), None)

    def peer_with_ae_title(self, title: str) -> Peer | None:
        """The first peer with this AE title, or None."""
        return next((peer for peer in self.entities if peer.ae_title == title.strip()), None)

    @property
    def rule_keywords(self) -> frozenset[str]:
        """Every DICOM keyword that a route, an export, a remote or a hosted model asks for."""
        rules: tuple[Route | Export | Remote, ...] = (*self.route, *self.deid.export, *self.deid.remote)
        conditions = [rule.when for rule in rules] + [model.accept for model in self.hosted.values()]
        return frozenset(keyword for asked in conditions for keyword in asked)

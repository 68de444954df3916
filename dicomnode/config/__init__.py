"""``conf/dicomnode.toml`` as a frozen ``Config`` that is passed in, never looked up."""

from dicomnode.config.audit import AuditSettings, CheckpointFile, CheckpointSyslog
from dicomnode.config.loading import ConfigSource, load_config, parse_config
from dicomnode.config.model import AssembleSettings, Config, NodeSettings, ReceiveSettings, Route
from dicomnode.config.peers import Destination, FolderPeer, Peer, StowPeer
from dicomnode.config.results import ResultSettings
from dicomnode.config.rules import Condition
from dicomnode.config.secrets import check_secrets, secret_files
from dicomnode.config.tls import ReceiveTls, TlsFiles

__all__ = [
    "AssembleSettings",
    "AuditSettings",
    "CheckpointFile",
    "CheckpointSyslog",
    "Condition",
    "Config",
    "ConfigSource",
    "Destination",
    "FolderPeer",
    "NodeSettings",
    "Peer",
    "ReceiveSettings",
    "ReceiveTls",
    "ResultSettings",
    "Route",
    "StowPeer",
    "TlsFiles",
    "check_secrets",
    "load_config",
    "parse_config",
    "secret_files",
]

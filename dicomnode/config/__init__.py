"""``conf/dicomnode.toml`` as a frozen ``Config`` that is passed in, never looked up."""

from dicomnode.config.loading import ConfigSource, load_config, parse_config
from dicomnode.config.model import AssembleSettings, AuditSettings, Config, NodeSettings, ReceiveSettings, Route
from dicomnode.config.peers import Destination, FolderPeer, Peer, StowPeer, TlsFiles
from dicomnode.config.results import ResultSettings
from dicomnode.config.rules import Condition

__all__ = [
    "AssembleSettings",
    "AuditSettings",
    "Condition",
    "Config",
    "ConfigSource",
    "Destination",
    "FolderPeer",
    "NodeSettings",
    "Peer",
    "ReceiveSettings",
    "ResultSettings",
    "Route",
    "StowPeer",
    "TlsFiles",
    "load_config",
    "parse_config",
]

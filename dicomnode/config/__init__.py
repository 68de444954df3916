"""``conf/dicomnode.toml`` as a frozen ``Config`` that is passed in, never looked up."""

from dicomnode.config.loading import ConfigSource, load_config, parse_config
from dicomnode.config.model import (
    AssembleSettings,
    AuditSettings,
    Config,
    NodeSettings,
    Peer,
    ReceiveSettings,
    ResultSettings,
    Route,
    TlsFiles,
)
from dicomnode.config.rules import Condition

__all__ = [
    "AssembleSettings",
    "AuditSettings",
    "Condition",
    "Config",
    "ConfigSource",
    "NodeSettings",
    "Peer",
    "ReceiveSettings",
    "ResultSettings",
    "Route",
    "TlsFiles",
    "load_config",
    "parse_config",
]

"""``[audit]``: how long audit rows stay, who signs checkpoints of the log and where these go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dicomnode.config.syslog import SYSLOG_TLS_PORT, SyslogSettings
from dicomnode.config.table import Table
from dicomnode.config.tls import TlsFiles


class CheckpointFile(Table):
    """A second place of checkpoints: a file, best on another machine's disk."""

    kind: Literal["file"]
    path: Path

    @property
    def name(self) -> str:
        """How alerts call it."""
        return f"file {self.path}"


class CheckpointSyslog(Table):
    """A second place of checkpoints: a log server, by syslog over TLS (RFC 5425)."""

    kind: Literal["syslog"]
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = SYSLOG_TLS_PORT
    tls: TlsFiles

    @property
    def name(self) -> str:
        """How alerts call it."""
        return f"syslog {self.host}:{self.port}"


CheckpointPlace = Annotated[CheckpointFile | CheckpointSyslog, Field(discriminator="kind")]


class AuditSettings(Table):
    """How long audit rows stay, and the checkpoints that prove them.

    ``checkpoint_path``: a place of kind file, by its path alone. ``public_key_files``: keys that signed before
    ``signing_key_file`` did.
    """

    retention_days: Annotated[int, Field(ge=183)] = 2190
    checkpoint_path: Path | None = None
    checkpoints: tuple[CheckpointPlace, ...] = ()
    checkpoint_rows: Annotated[int, Field(ge=100)] = 10000
    signing_key_file: Path | None = None
    public_key_files: tuple[Path, ...] = ()
    syslog: SyslogSettings | None = None

    @model_validator(mode="after")
    def _places_differ(self) -> AuditSettings:
        names = [place.name for place in self.places]
        if len(set(names)) != len(names):
            raise ValueError("two places of checkpoints are the same")
        return self

    @property
    def checkpoint_files(self) -> tuple[Path, ...]:
        """The places that are files."""
        return tuple(place.path for place in self.places if isinstance(place, CheckpointFile))

    @property
    def places(self) -> tuple[CheckpointFile | CheckpointSyslog, ...]:
        """Every second place, ``checkpoint_path`` first."""
        first = () if self.checkpoint_path is None else (CheckpointFile(kind="file", path=self.checkpoint_path),)
        return (*first, *self.checkpoints)

"""``[audit.syslog]``: the audit record repository to which every row goes as a message of PS3.15 A.5."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicomnode.config.table import Table
from dicomnode.config.tls import TlsFiles

SYSLOG_TLS_PORT = 6514
"""RFC 5425, 4.1."""


class SyslogSettings(Table):
    """An audit record repository, by syslog over TLS (PS3.15 A.6, RFC 5425).

    ``images``: is there a message for each image, beside those for each transfer of a Study? ``alert_after_s``: an
    outage that lasts longer is a security alert.
    """

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = SYSLOG_TLS_PORT
    tls: TlsFiles
    images: bool = False
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 15.0
    alert_after_s: Annotated[float, Field(ge=60)] = 3600.0

    @property
    def place(self) -> str:
        """How the node's tables and alerts call it."""
        return f"{self.host}:{self.port}"

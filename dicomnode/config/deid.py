"""``[deid]``: the project under whose key objects are de-identified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dicomnode.config.outside import Export, Remote, VaultSettings
from dicomnode.config.table import Table


class DeidSettings(Table):
    """``key_file``: of the project; without it nothing is de-identified. ``profile``: a shipped one or a file.

    ``jobs``: processes of ``dicomnode deid``; 0: one for each core. ``vault``: the way back, off without its table.
    ``export``: which images go outside; ``remote``: detectors outside.
    """

    key_file: Path | None = None
    profile: Annotated[str, Field(min_length=1)] = "basic"
    jobs: Annotated[int, Field(ge=0, le=256)] = 0
    vault: VaultSettings | None = None
    export: tuple[Export, ...] = Field(default_factory=tuple)
    remote: tuple[Remote, ...] = Field(default_factory=tuple)

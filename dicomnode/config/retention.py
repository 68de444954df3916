"""``[retention]``: when the files of a Study leave the spool. Off by default: the node removes nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dicomnode.config.table import Table


class RetentionSettings(Table):
    """What may go is always a whole Study whose every result is delivered, and committed where that is asked for.

    ``days``: it goes so long after the last thing that happened to it; None: age is no reason. ``reserve_bytes``: with
    less free space than this, those that have rested longest go earlier; 0: lack of space is no reason.
    """

    days: Annotated[float, Field(gt=0, le=36500)] | None = None
    reserve_bytes: Annotated[int, Field(ge=0)] = 0

    @property
    def active(self) -> bool:
        """Is there any reason for which a Study may go?"""
        return self.days is not None or self.reserve_bytes > 0

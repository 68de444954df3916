"""Whether a process of the node still runs."""

from __future__ import annotations

import os


def runs(pid: int) -> bool:
    """Is there a process of this number? One of another user counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

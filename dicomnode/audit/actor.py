"""Who causes an audit row: the account at the command line."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping


def actor(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """``user``: the account of this process; behind ``sudo`` the account that called it, and ``run_as`` beside it.

    Only the administrator could invent ``SUDO_USER``: it counts in a process of root alone.
    """
    values = os.environ if environment is None else environment
    account = _account(os.geteuid())
    caller = values.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    return {"user": caller, "run_as": account} if caller and caller != account else {"user": account}


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"

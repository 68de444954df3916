"""``dicomnode serve``."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import click

from dicomnode.cli.options import blueprint, config_option
from dicomnode.node.logs import log_to_stderr
from dicomnode.node.supervisor import ROLES, Node, stop_on_signals


@click.command()
@config_option
@click.option("--role", type=click.Choice([*ROLES, "all"]), default="all", show_default=True, help="What to run.")
def serve(config_path: Path | None, role: str) -> None:
    """Run the node in the foreground. Logs JSON lines to stderr, prints "ready" with its ports, drains on SIGTERM."""
    os.umask(0o077)  # what the node writes holds patient data
    log_to_stderr("supervisor")
    plan = blueprint(config_path)
    node = Node(plan, ROLES if role == "all" else (role,))
    stop_on_signals(node)

    def ready(said: dict[str, Any]) -> None:
        words = ["ready", f"ae_title={plan.config.node.ae_title}"]
        if "receive_port" in said:
            words.append(f"dicom={plan.config.node.host}:{said['receive_port']}")
        if "receive_tls_port" in said:
            words.append(f"dicom_tls={plan.config.node.host}:{said['receive_tls_port']}")
        if "console_port" in said:
            words.append(f"console=http://{plan.config.node.console_host}:{said['console_port']}/")
        if "detect_accelerator" in said:
            words.append(f"accelerator={said['detect_accelerator']}")
        with contextlib.suppress(OSError):  # nobody has to listen
            click.echo(" ".join(words))

    node.run(ready)

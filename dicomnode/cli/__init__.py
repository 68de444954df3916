"""The command line: arguments in, exit status out. 0 done, 1 not all went well, 2 wrong configuration or usage."""

from __future__ import annotations

import importlib
import sys

import click
from click.exceptions import Exit

import dicomnode
from dicomnode.errors import ConfigError, DicomNodeError

EPILOG = "Research software, not a medical device. Its results must not be used for clinical decisions."


COMMANDS = {
    "serve": "serve",
    "demo": "demo",
    "send": "send",
    "status": "status",
    "audit": "audit",
    "route": "route",
    "models": "show",
    "detectors": "show",
    "jobs": "jobs",
    "drift": "drift",
    "retention": "retention",
    "doctor": "doctor",
    "backup": "backup",
    "restore": "backup",
    "train": "train",
    "evaluate": "evaluate",
    "compare": "compare",
    "stress": "stress",
    "deid": "deid",
    "support-bundle": "support",
}
"""Command to the module of this package that holds it; imported when it is asked for, so that each starts fast."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click decides the signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"dicomnode.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dicomnode.__version__, prog_name="dicomnode")
def cli() -> None:
    """A PACS-integrated DICOM AI node: receive, route, detect, report, deliver, audit."""


def main() -> None:
    """Entry point of ``dicomnode``."""
    try:
        result = cli.main(standalone_mode=False)
    except ConfigError as error:
        click.echo(f"configuration: {error}", err=True)
        sys.exit(2)
    except DicomNodeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        click.echo(f"error: {error.filename or 'system'}: {error.strerror or type(error).__name__}", err=True)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)

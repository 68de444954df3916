"""The command line: arguments in, exit status out. 0 done, 1 not all went well, 2 wrong configuration or usage."""

from __future__ import annotations

import sys

import click
from click.exceptions import Exit

import dicomnode
from dicomnode.cli.audit import audit
from dicomnode.cli.demo import demo
from dicomnode.cli.doctor import doctor
from dicomnode.cli.jobs import jobs
from dicomnode.cli.route import route
from dicomnode.cli.send import send
from dicomnode.cli.serve import serve
from dicomnode.cli.show import detectors, models
from dicomnode.cli.status import status
from dicomnode.errors import ConfigError, DicomNodeError

EPILOG = "Research software, not a medical device. Its results must not be used for clinical decisions."


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dicomnode.__version__, prog_name="dicomnode")
def cli() -> None:
    """A PACS-integrated DICOM AI node: receive, route, detect, report, deliver, audit."""


for _command in (serve, demo, send, status, audit, route, models, detectors, jobs, doctor):
    cli.add_command(_command)


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
    sys.exit(result if isinstance(result, int) else 0)

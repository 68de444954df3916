"""``python -m tests.viewer [FOLDER]``: PASS or FAIL for each Series that the node delivered; photographs in FOLDER."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from tests.viewer.archive import DICOM_WEB_PLUGIN
from tests.viewer.ohif import ohif_dist


def missing() -> list[str]:
    """What is not installed and has to be."""
    found = {
        "chromium": shutil.which("chromium") or shutil.which("google-chrome"),
        "orthanc": shutil.which("Orthanc"),
        "orthanc-dicomweb": DICOM_WEB_PLUGIN.is_file(),
        'playwright (pip install "dicomnode[viewer]")': importlib.util.find_spec("playwright"),
    }
    return [name for name, there in found.items() if not there]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="viewer-out")
def main(folder: Path) -> None:
    """Exit status 1 when something is not shown, 2 when something is not installed."""
    if absent := missing():
        raise click.UsageError(f"not installed: {', '.join(absent)}")
    started = time.monotonic()
    failed = shown = 0
    for line, good in verdicts(folder):
        click.echo(line)
        shown, failed = shown + good, failed + (not good)
    click.echo(f"{shown} passed, {failed} failed, {time.monotonic() - started:.0f} s; photographs in {folder}")
    if failed or not shown:
        raise SystemExit(1)


def verdicts(folder: Path) -> Iterator[tuple[str, bool]]:
    """Run everything; one line per Series and whether it is shown, as it is seen."""
    from tests.viewer.check import check
    from tests.viewer.expected import expected_of
    from tests.viewer.serve import served
    from tests.viewer.site import filled_archive

    dist = ohif_dist()
    with tempfile.TemporaryDirectory(prefix="dicomnode-viewer-") as work, filled_archive(Path(work)) as archive:
        files = Path(work) / "delivered"
        files.mkdir()
        wanted = expected_of(archive.download_all(files))
        with served(dist, f"http://127.0.0.1:{archive.http_port}") as origin:
            yield from ((str(one), one.shown) for one in check(origin, wanted, folder))


if __name__ == "__main__":
    main()

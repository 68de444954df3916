"""``dicomnode audit export``, ``evidence`` and ``provenance``: what leaves the house."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import click
from sqlalchemy.orm import Session

from dicomnode.audit import AuditFilter, export_csv, find
from dicomnode.audit.bundle import write_bundle
from dicomnode.audit.message import Message, message_of
from dicomnode.audit.message_fhir import bundle, to_fhir
from dicomnode.audit.message_xml import to_xml
from dicomnode.audit.signing import SigningKey
from dicomnode.cli.audit_options import asked, filter_options, target_of, used
from dicomnode.cli.options import as_json, config_option
from dicomnode.config import CheckpointFile, Config
from dicomnode.errors import ConfigError

FORMS = ("csv", "json", "jsonl", "dicom-xml", "fhir", "fhir-bundle")


@click.command()
@config_option
@filter_options
@click.option("--format", "form", type=click.Choice(FORMS), default="csv", show_default=True)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here instead of stdout.")
def export(config_path: Path | None, output: Path | None, form: str, **filters: Any) -> None:
    """Export rows: CSV, JSON, DICOM audit messages (PS3.15 A.5, one a line) or FHIR R4 AuditEvents (NDJSON, Bundle)."""
    config, store = used(config_path, "export", {**filters, "format": None if form == "csv" else form})
    with store.read() as session, target_of(output) as target:
        count = _write(session, asked(config, **filters), config, form, target)
    if output is not None:
        click.echo(f"{count} rows in {output}")


def _write(session: Session, wanted: AuditFilter, config: Config, form: str, target: TextIO) -> int:
    if form == "csv":
        return export_csv(session, wanted, target)
    rows = find(session, wanted)
    if form == "json":
        found = list(rows)
        target.write(as_json(found) + "\n")
        return len(found)
    host, title = socket.gethostname(), config.node.ae_title
    if form == "jsonl":
        return _lines((json.dumps(row, ensure_ascii=True) for row in rows), target)
    messages: Iterable[Message] = (message_of(row, title, host) for row in rows)
    if form == "dicom-xml":
        return _lines(map(to_xml, messages), target)
    resources = map(to_fhir, messages)
    if form == "fhir":
        return _lines((json.dumps(one, ensure_ascii=True) for one in resources), target)
    collected = list(resources)
    target.write(json.dumps(bundle(collected), ensure_ascii=True, indent=1) + "\n")
    return len(collected)


def _lines(lines: Iterable[str], target: TextIO) -> int:
    count = 0
    for line in lines:
        target.write(line + "\n")
        count += 1
    return count


@click.command()
@config_option
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@filter_options
def evidence(config_path: Path | None, out: Path, **filters: Any) -> None:
    """Write a signed bundle of the rows that fit, with all that it takes to check it without dicomnode."""
    config, store = used(config_path, "evidence", filters)
    if config.audit.signing_key_file is None:
        raise ConfigError("audit.signing_key_file: a bundle of evidence is signed, and no key is configured")
    key = SigningKey.load(config.audit.signing_key_file)
    with store.read() as session:
        made = write_bundle(session, asked(config, **filters), out, key, config.node.ae_title, _checkpoints(config))
    click.echo(
        f"{made.rows} rows in {out}, signed by key {made.key}; "
        f"{made.withheld} others from row {made.first} to {made.last} are withheld"
    )


def _checkpoints(config: Config) -> list[str]:
    """What the node wrote to the files of its second place; one that cannot be read now has none."""
    lines: list[str] = []
    for place in config.audit.places:
        if isinstance(place, CheckpointFile) and place.path.is_file():
            text = place.path.read_text(encoding="utf-8", errors="replace")
            lines += [line for line in text.splitlines() if line.strip()]
    return lines


@click.command()
@config_option
@click.argument("uid")
@click.option("--format", "form", type=click.Choice(("json-ld", "svg", "png", "html")), default="json-ld")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here instead of stdout.")
def provenance(config_path: Path | None, uid: str, form: str, output: Path | None) -> None:
    """Where a result comes from and where it went: UID of a study, a series, a source image or a result.

    As JSON-LD with the terms of W3C PROV, or as a picture, which holds no patient data.
    """
    from dicomnode.audit.provenance import provenance as trace  # drawing loads a library that other commands do without
    from dicomnode.audit.provenance_draw import page, to_png, to_svg
    from dicomnode.audit.provenance_jsonld import to_jsonld
    from dicomnode.audit.provenance_picture import picture_of

    if form == "png" and output is None:
        raise click.UsageError("a PNG goes into a file: --output")
    _, store = used(config_path, "provenance", {"instance": uid, "format": form})
    with store.read() as session:
        analyses = trace(session, uid)
    title = f"Provenance from the audit log, rows {', '.join(str(one.seq) for one in analyses[:8])}"
    if form == "png" and output is not None:
        to_png(picture_of(analyses), title).save(output, "PNG")
        return
    document = to_jsonld(analyses)
    text = as_json(document) + "\n"
    if form != "json-ld":
        drawing = to_svg(picture_of(analyses), title)
        text = drawing if form == "svg" else page(title, drawing, document)
    with target_of(output) as target:
        target.write(text)


EXPORT_COMMANDS = (export, evidence, provenance)

"""What peers send is shown and never obeyed by terminals, log readers, browsers, spreadsheets; and it is not logged."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydicom import Dataset
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sequence import Sequence
from sqlalchemy import select, text
from starlette.testclient import TestClient

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.cli import cli
from dicomnode.config import parse_config
from dicomnode.console.metrics import prometheus
from dicomnode.console.page import overview
from dicomnode.console.server import application
from dicomnode.console.status import read_status
from dicomnode.deliver.worker import Deliverer
from dicomnode.detectors.contract import DetectionResult, Volume
from dicomnode.node.logs import JsonFormatter
from dicomnode.report import to_bytes
from dicomnode.store.spool import digest
from dicomnode.store.tables import AssignmentRow, InstanceRow, JobRow, SeriesRow, StudyRow
from tests.fuzz.wire import CT_IMAGE, element
from tests.integration import detect_fixtures
from tests.integration.detect_fixtures import Bench, complete_series, finding_result
from tests.integration.security_fixtures import Node, data_set

ESCAPES = '\x1b[2J\x1b]0;owned\x07\r\n\x9b31m\u202e{"level": "info"}'
SQL = "'; DROP TABLE study; --"
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"
FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1+1")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Lines(logging.Handler):
    """What the node would write to stderr, at every level of its own loggers."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter("test"))
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(self.format(record))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What our loggers say; handlers that earlier tests left at the root write into streams that are closed."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    handler, logger = Lines(), logging.getLogger("dicomnode")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.written
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def hostile(tmp_path: Path, lines: list[str]) -> Iterator[Node]:
    """A node that a hostile peer has talked to: AE title, names, descriptions, UIDs, refusals."""
    node = Node(tmp_path, accept_unknown_peers=True)
    try:
        named = element(0x00080060, ESCAPES.encode("latin-1", "replace")[:14]) + element(0x0008103E, HTML.encode())
        patient = element(0x00100010, ESCAPES.encode("latin-1", "replace")) + element(0x00100020, SQL.encode())
        body = element(0x00080016, CT_IMAGE) + element(0x00080018, b"1.2.3.4") + named + patient
        body += element(0x0020000D, b"1.2.3") + element(0x0020000E, b"1.2.3.1")
        for calling in (b"\x1b[31mEVIL\r\n", b"FUZZ"):
            try:
                node.status_of(body, b"1.2.3.4", calling)
                node.status_of(data_set(b"../\x1b[2J\r\nx"), b"../\x1b[2J\r\nx", calling)
            except (AssertionError, EOFError, OSError):
                assert calling != b"FUZZ"
        with node.store.write() as session:
            for value in (ESCAPES, SQL, HTML, *FORMULAS):
                append(session, Event.QUARANTINED if hasattr(Event, "QUARANTINED") else Event.SECURITY_ALERT,
                       {"PatientID": value, "reason": value, "peer": value})  # fmt: skip
            session.add(
                JobRow(kind="detect", dedup_key="9", payload={}, state="dead", error=ESCAPES + HTML, created_at=1.0)
            )
            series = session.scalars(select(SeriesRow)).one()
            session.add(AssignmentRow(series_id=series.id, generation=1, route=HTML, send_to=[], outcome="not analysed",
                                      reason=ESCAPES + HTML, created_at=3.0))  # fmt: skip
        path = tmp_path / "dicomnode.toml"
        path.write_text(f'[node]\ndata_dir = "{node.data}"\ndatabase = "sqlite:///{node.data}/node.sqlite3"\n')
        yield node
    finally:
        node.close()


def asked(node: Node, *command: str) -> str:
    """What a command writes to the terminal."""
    arguments = [*command, "--config", str(node.outside / "dicomnode.toml")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code in (0, 1), result.output
    return result.output


def test_s15_logs_are_one_line_of_plain_json_each(hostile: Node, lines: list[str]) -> None:
    """S15: CR, LF and ESC from AE titles, UIDs and names are escaped: nobody forges a line."""
    assert lines
    for line in lines:
        assert "\n" not in line
        assert line.isascii()
        assert not CONTROL.search(line)
        assert json.loads(line)["role"] == "test"


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", "--json"),
        ("audit", "list"),
        ("audit", "list", "--json"),
        ("audit", "export", "--json"),
        ("audit", "show", "3"),
        ("drift",),
    ],
    ids=" ".join,
)
def test_s15_a_terminal_gets_no_control_characters(hostile: Node, command: tuple[str, ...]) -> None:
    """S15: escape sequences in what a peer sent are written out, by every command that shows it."""
    shown = asked(hostile, *command)
    assert shown.strip()
    assert not CONTROL.search(shown)


def test_s15_an_export_keeps_the_stored_text_and_escapes_the_rest(hostile: Node) -> None:
    """S15: CSV holds the body as it is hashed, JSON without C0 controls; other cells have none at all."""
    shown = asked(hostile, "audit", "export")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown)
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert len(rows) > 5
    assert not [row for row in rows if CONTROL.search(row["PatientID"] + row["StudyInstanceUID"] + row["kind"])]


def test_s15_audit_rows_hold_escapes_as_escapes(hostile: Node) -> None:
    """S15: a row of the log is one line of JSON, whatever stands in it."""
    with hostile.store.read() as session:
        bodies = list(session.execute(text("SELECT body FROM audit")).scalars())
    assert any("\\u001b" in body for body in bodies)
    assert all(not re.search(r"[\x00-\x1f]", body) for body in bodies)


class Structure(HTMLParser):
    """Tags with the names of their attributes, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))


def spoiled(value: Any, with_what: str) -> Any:
    """Every text that may come from outside becomes hostile."""
    if isinstance(value, dict):
        return {
            key: spoiled(inner, with_what) if key not in ("outcome", "state") else inner for key, inner in value.items()
        }
    if isinstance(value, list):
        return [spoiled(inner, with_what) for inner in value]
    return with_what if isinstance(value, str) else value


def test_s16_no_text_becomes_markup_on_the_page(hostile: Node) -> None:
    """S16: with HTML in every text of the status, the page has the same elements as with harmless texts."""
    config, _ = parse_config("")
    status = read_status(config, hostile.store, hostile.spool, 10.0)
    calm, evil = (Structure(overview(spoiled(status, value))).tags for value in ("harmless", HTML + "'\" onload=x"))
    assert calm == evil
    assert len(calm) > 40
    assert not {tag for tag, _ in calm} & {"script", "img", "iframe", "object"}


def test_s16_pages_are_served_inert_and_sql_in_a_name_does_nothing(hostile: Node) -> None:
    """S16: no script, a policy that forbids one, every table still there, and a filter takes SQL as a value."""
    config, _ = parse_config("")
    with TestClient(application(config, hostile.store, hostile.spool)) as client:
        page = client.get("/")
        assert "<script" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert not CONTROL.search(client.get("/metrics").text)
        assert client.get("/status?x=" + SQL).status_code == 200
    with hostile.store.read() as session:
        assert session.scalars(select(StudyRow)).one().PatientID == SQL
    found = json.loads(asked(hostile, "audit", "list", "--patient", SQL, "--json"))
    assert found
    assert {row["body"]["PatientID"] for row in found if "PatientID" in row["body"]} == {SQL}
    assert json.loads(asked(hostile, "audit", "list", "--patient", "' OR '1'='1", "--json")) == []


def test_s16_no_cell_of_an_export_is_a_formula(hostile: Node) -> None:
    """S16: a spreadsheet that opens the export evaluates nothing."""
    rows = list(csv.reader(io.StringIO(asked(hostile, "audit", "export"))))
    cells = [cell for row in rows for cell in row]
    assert any("cmd|" in cell for cell in cells)
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r\n")]


SENTINEL = "ZQXJ"
TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
PLANTED = [
    "PatientName",
    "PatientID",
    "OtherPatientNames",
    "PatientAddress",
    "PatientComments",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "SeriesDescription",
    "ReferringPhysicianName",
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "OperatorsName",
    "PerformingPhysicianName",
    "ProtocolName",
    "RequestedProcedureDescription",
    "AdditionalPatientHistory",
    "ImageComments",
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "MedicalAlerts",
    "Occupation",
]


def planted(number: int) -> Dataset:
    """A CT image with a sentinel in every text, within a sequence and in a private element too."""
    dataset = detect_fixtures.plain_slice(number)
    for index, keyword in enumerate(PLANTED):
        assert dictionary_VR(tag_for_keyword(keyword)) in TEXT
        setattr(dataset, keyword, f"{SENTINEL}{index}")
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning, inner.CodingSchemeDesignator = f"{SENTINEL}A", f"{SENTINEL}B", "99X"
    dataset.ProcedureCodeSequence = Sequence([inner])
    block = dataset.private_block(0x0011, f"{SENTINEL}C", create=True)
    block.add_new(1, "LO", f"{SENTINEL}D")
    return dataset


def quoting(volume: Volume) -> DetectionResult:
    raise ValueError(f"cannot analyse {SENTINEL}0 of {volume.summary.attributes}")


def test_s17_no_log_no_metric_and_no_error_holds_what_is_in_the_images(
    tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """S17: sentinels in every text element, through success and failures of each kind, at every level of our logs."""
    monkeypatch.setattr(detect_fixtures, "plain_slice", detect_fixtures.ct_slice, raising=False)
    monkeypatch.setattr(detect_fixtures, "ct_slice", planted)
    assert to_bytes(planted(1)).count(SENTINEL.encode()) >= len(PLANTED)
    refusals(tmp_path / "reception")
    benches = [Bench(tmp_path / name) for name in ("good", "raising", "broken")]
    try:
        for bench, script in zip(benches, (finding_result, quoting, finding_result), strict=True):
            complete_series(bench.store, bench.spool)
            if bench is benches[2]:
                cut_pixels(bench)
            work(bench, script)
        assert any(row.outcome == "findings" for row in benches[0].rows(AssignmentRow))
        assert any(row.attempt for bench in benches for row in bench.rows(JobRow))
        for bench in benches:
            said = [row.error for row in bench.rows(JobRow)]
            metrics = prometheus(read_status(bench.config, bench.store, bench.spool, 200.0))
            assert SENTINEL not in "".join(said) + metrics
    finally:
        for bench in benches:
            bench.store.close()
    written = "\n".join(lines) + "".join(capfd.readouterr())
    assert "instance refused" in written
    assert SENTINEL not in written


def refusals(folder: Path) -> None:
    """Instances that are refused: another UID, cut off, no data set at all; and one that is stored."""
    folder.mkdir()
    node = Node(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = planted(1)
            whole = implicit(dataset)
        uid = str(dataset.SOPInstanceUID).encode()
        assert node.status_of(whole, uid) == 0
        for data in (whole[: len(whole) // 2], whole[:200], b"\xff" * 40 + whole):
            assert node.status_of(data, uid) != 0
        assert node.status_of(whole, b"1.2.3.4") == 0xA900
    finally:
        node.close()


def implicit(dataset: Dataset) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    target = DicomBytesIO()
    target.is_implicit_VR, target.is_little_endian = True, True
    write_dataset(target, Dataset({tag: dataset[tag] for tag in dataset.keys() if tag.group != 2}))  # noqa: SIM118
    return target.getvalue()


def cut_pixels(bench: Bench) -> None:
    """The second image loses half of its pixels, as a broken disk or a broken scanner may do it."""
    with bench.store.write() as session:
        row = session.scalars(select(InstanceRow).order_by(InstanceRow.id)).all()[1]
        dataset = planted(2)
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 2]
        content = to_bytes(dataset)
        row.path, row.sha256 = bench.spool.store((content,), "received", digest(content)), digest(content)
        row.size = len(content)


def work(bench: Bench, script: Any) -> None:
    """Detect, then deliver to a port where nobody listens."""
    worker, flow = bench.worker(script), bench.flow()
    for _ in range(4):
        worker.step()
        bench.now += 5000.0
    while flow.step():
        pass
    deliverer = Deliverer(bench.config, bench.store, bench.spool, "deliver-1", lambda: bench.now)
    for _ in range(2):
        deliverer.step()
        bench.now += 5000.0

"""The conformance statement says what the code does, no less and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from dicomnode.config.results import PROFILES, SEND_ORDER
from dicomnode.dicom.commitment import EventStatus, FailureReason
from dicomnode.dicom.sop_classes import STORAGE_SOP_CLASSES
from dicomnode.dicom.status import Status, storage_disposition
from dicomnode.dicom.transfer_syntaxes import ALL_TRANSFER_SYNTAXES
from dicomnode.report.envelope import SERIES_NUMBERS
from tests.docs_conformance.__main__ import main
from tests.docs_conformance.document import DOCUMENT, current, sections
from tests.docs_conformance.markdown import fill, table
from tests.docs_conformance.objects import _attributes
from tests.docs_conformance.samples import of_kind
from tests.docs_conformance.statuses import handled_codes, statuses_named_in


def test_the_statement_is_current() -> None:
    """Run ``python -m tests.docs_conformance --write`` when this fails."""
    assert DOCUMENT.read_text(encoding="utf-8") == current()


def test_the_statement_follows_ps3_2() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    chapters = ("Overview", "Contents", "Introduction", "Networking", "Media interchange", "Support of character sets")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        f"## {number}. {name}" for number, name in enumerate((*chapters, "Security", "Annexes"), 1)
    ]  # fmt: skip
    assert "not a medical device" in text


def test_the_command_tells_an_old_statement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A default that changed in the text alone is found, and --write mends it."""
    old = tmp_path / "conformance.md"
    old.write_text(DOCUMENT.read_text(encoding="utf-8").replace("`131072`", "`16382`"), encoding="utf-8")
    for module in ("tests.docs_conformance.__main__", "tests.docs_conformance.document"):
        monkeypatch.setattr(f"{module}.DOCUMENT", old)
    assert CliRunner().invoke(main).exit_code == 1
    assert CliRunner().invoke(main, ["--write"]).exit_code == 0
    assert CliRunner().invoke(main).exit_code == 0


def test_every_sop_class_and_transfer_syntax_is_listed() -> None:
    made = sections()
    assert all(f"`{uid}`" in made["storage-scp-sop-classes"] for uid in STORAGE_SOP_CLASSES)
    assert all(f"`{uid}`" in made["storage-scp-transfer-syntaxes"] for uid in ALL_TRANSFER_SYNTAXES)


def test_every_kind_of_result_is_described() -> None:
    """Its SOP Class is proposed, its Series Number, its profile and its stand-in are listed."""
    made = sections()
    for document, number in SERIES_NUMBERS.items():
        assert f"| {number} |" in made["series-numbers"], document
    for kind in SEND_ORDER:
        assert f"| {kind} |" in made["result-stand-ins"]
        (first, *_) = of_kind(kind)
        assert f"`{first.SOPClassUID}`" in made["storage-scu-contexts"]
    assert all(f"`{name}`" in made["result-profiles"] for name in PROFILES)


def test_every_answer_to_a_commitment_report_is_described() -> None:
    made = sections()
    assert all(f"`0x{status:04X}`" in made["commitment-event-status"] for status in EventStatus)
    assert all(f"0x{reason:04X}" in made["commitment-failure-reasons"] for reason in FailureReason)


def test_every_status_code_is_covered_once() -> None:
    """The ranges of the table and "any other" give the same answer as the code for all 65,536 codes."""
    *listed, other = handled_codes()
    said = {}
    for shown, _, disposition in listed:
        first, _, last = shown.partition("–")
        for code in range(int(first, 16), int(last or first, 16) + 1):
            assert code not in said
            said[code] = disposition
    assert all(said.get(code, other[2]) is storage_disposition(code) for code in range(0x10000))


def test_a_new_status_in_receive_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("def answer():\n    return Status.NOT_AUTHORIZED\n")
    assert statuses_named_in(tmp_path) == {Status.NOT_AUTHORIZED.name}


def test_a_new_attribute_without_origin_stops_the_generator() -> None:
    from pydicom.dataset import Dataset

    made = Dataset()
    made.PatientComments = "x"
    with pytest.raises(ValueError, match="PatientComments"):
        _attributes([made], {})


def test_places_and_sections_have_to_agree() -> None:
    document = "a\n<!-- generated: one -->\nold\n<!-- /generated -->\nb\n"
    assert fill(document, {"one": "new"}) == document.replace("old", "new")
    for wrong in ({}, {"one": "x", "two": "y"}):
        with pytest.raises(ValueError, match="differ"):
            fill(document, wrong)


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert table(("a",), [("x|y",)]).splitlines()[-1] == "| x\\|y |"

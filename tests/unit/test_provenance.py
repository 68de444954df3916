"""Where a result comes from and where it went: JSON-LD with PROV terms, and a picture without patient data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from dicomnode.audit import append
from dicomnode.audit.events import Event
from dicomnode.audit.provenance import provenance
from dicomnode.audit.provenance_draw import page, to_png, to_svg
from dicomnode.audit.provenance_jsonld import CONTEXT, to_jsonld
from dicomnode.audit.provenance_picture import BOX_W, GAP_X, picture_of
from dicomnode.errors import Permanent
from dicomnode.store.engine import Store
from dicomnode.store.schema import migrate

STUDY, SERIES = "1.2.840.1.7", "1.2.840.1.7.1"
SUBJECT = {"PatientID": "PID-SECRET", "AccessionNumber": "ACC-SECRET", "StudyInstanceUID": STUDY}
SUBJECT |= {"SeriesInstanceUID": SERIES}
SOURCES = [{"SOPInstanceUID": f"{SERIES}.{n}", "sha256": f"{n:064x}"} for n in range(1, 5)]
PROV = "http://www.w3.org/ns/prov#"
PROV_TERMS = {
    *("Entity", "Activity", "Agent", "SoftwareAgent"),
    *("used", "wasDerivedFrom", "wasGeneratedBy", "wasAssociatedWith", "wasAttributedTo", "actedOnBehalfOf"),
    *("wasInformedBy", "startedAtTime", "endedAtTime", "generatedAtTime"),
}
"""Terms of PROV-O that are used."""


def outputs(*uids: str, kind: str = "sr") -> list[dict[str, str]]:
    return [{"SOPInstanceUID": uid, "kind": kind, "sha256": uid[-1] * 64} for uid in uids]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A Study with two analyses, of which the first was delivered, committed, and its sources exported."""
    made = Store(f"sqlite:///{tmp_path}/x.sqlite3")
    migrate(made)
    with made.write() as session:
        for source in SOURCES:
            append(session, Event.INSTANCE_STORED, SUBJECT | source | {"peer": "ct-1", "CallingAETitle": "CT1"})
        facts: dict[str, Any] = {"assignment": 1, "generation": 1, "sources": SOURCES, "detector": "ct-head"}
        facts |= {"model": "head", "model_version": "1.2", "weights_sha256": "ab" * 32, "software_version": "0.1"}
        facts |= {"outcome": "findings", "score": 0.91, "threshold": 0.5, "started_at": 1.7e9, "finished_at": 1.7e9 + 3}
        append(session, Event.INFERENCE, SUBJECT | facts | {"outputs": outputs("2.25.1", "2.25.2")})
        append(session, Event.STAND_INS, SUBJECT | {"assignment": 1, "outputs": outputs("2.25.3", kind="sc")})
        there = SUBJECT | {"assignment": 1, "peer": "pacs", "instances": outputs("2.25.1", "2.25.2")}
        append(session, Event.DELIVERED, there)
        append(session, Event.COMMITTED, there | {"instances": ["2.25.1"]})
        lines = [{"SOPInstanceUID": SOURCES[0]["SOPInstanceUID"], "sha256_before": SOURCES[0]["sha256"]}]
        lines[0]["sha256_after"] = "cd" * 32
        append(session, Event.EXPORT, SUBJECT | {"peer": "research", "profile": "basic", "instances": lines})
        other = facts | {"assignment": 2, "model": "<b>&bone", "weights_sha256": "ef" * 32, "sources": SOURCES[:1]}
        append(session, Event.INFERENCE, SUBJECT | other | {"outputs": outputs("2.25.8"), "outcome": "no findings"})
        failed = SUBJECT | {"assignment": 2, "peer": "pacs", "instances": outputs("2.25.8")}
        append(session, Event.DELIVERY_FAILED, failed)
    yield made
    made.close()


def graph(store: Store, uid: str) -> dict[str, dict[str, Any]]:
    with store.read() as session:
        document = to_jsonld(provenance(session, uid))
    return {node["@id"]: node for node in document["@graph"]}


@pytest.mark.parametrize(
    ("uid", "rows"),
    [
        (STUDY, [5, 10]),
        (SERIES, [5, 10]),
        ("2.25.1", [5]),
        ("2.25.3", [5]),
        ("2.25.8", [10]),
        (SOURCES[0]["SOPInstanceUID"], [5, 10]),
        (SOURCES[3]["SOPInstanceUID"], [5]),
    ],
)
def test_any_uid_leads_to_the_analyses_that_concern_it(store: Store, uid: str, rows: list[int]) -> None:
    """A Study, a Series, a result, what stood in for it, or an image that was looked at."""
    with store.read() as session:
        assert [one.seq for one in provenance(session, uid)] == rows


def test_an_unknown_uid_is_an_error(store: Store) -> None:
    with store.read() as session, pytest.raises(Permanent, match="knows no analysis"):
        provenance(session, "1.2.3")


def test_the_graph_goes_from_the_images_to_the_destinations(store: Store) -> None:
    """Source instances -> volume -> model -> findings -> derived instances -> deliveries, and de-identified copies."""
    nodes = graph(store, "2.25.1")
    run = nodes["urn:dicomnode:row:5"]
    volume, model = run["used"]
    assert nodes[model]["node:weights_sha256"] == "ab" * 32
    assert nodes[volume]["wasDerivedFrom"] == [f"urn:oid:{one['SOPInstanceUID']}" for one in SOURCES]
    findings = nodes["urn:dicomnode:row:5#findings"]
    assert (findings["wasGeneratedBy"], findings["node:outcome"]) == ("urn:dicomnode:row:5", "findings")
    result = nodes["urn:oid:2.25.1"]
    assert result["wasDerivedFrom"] == ["urn:dicomnode:row:5#findings", volume]
    assert result["node:sha256"] == "1" * 64
    delivery = nodes["urn:dicomnode:row:7"]
    assert delivery["used"] == ["urn:oid:2.25.1", "urn:oid:2.25.2"]
    assert "urn:dicomnode:peer:pacs" in delivery["wasAssociatedWith"]
    assert nodes["urn:dicomnode:row:8"]["label"] == "storage commitment"
    copy = nodes[f"urn:sha256:{'cd' * 32}"]
    assert copy["wasDerivedFrom"] == f"urn:oid:{SOURCES[0]['SOPInstanceUID']}"
    assert nodes[f"urn:oid:{SOURCES[0]['SOPInstanceUID']}"]["wasAttributedTo"] == ["urn:dicomnode:peer:ct-1"]
    assert run["startedAtTime"] == "2023-11-14T22:13:20+00:00"


def test_every_term_is_defined_and_every_link_leads_to_a_node(store: Store) -> None:
    """The document stands alone: its context is inline, its PROV terms are those of PROV-O, no link is broken."""
    with store.read() as session:
        document = json.loads(json.dumps(to_jsonld(provenance(session, STUDY))))
    context = document["@context"]
    assert context == CONTEXT
    assert context["prov"] == PROV
    ids = {node["@id"] for node in document["@graph"]}
    assert len(ids) == len(document["@graph"])
    for node in document["@graph"]:
        kinds = node["@type"] if isinstance(node["@type"], list) else [node["@type"]]
        assert {kind.removeprefix("prov:") for kind in kinds} <= PROV_TERMS
        for name, value in node.items():
            if name.startswith("@"):
                continue
            prefix, colon, _ = name.partition(":")
            assert (prefix if colon else name) in context
            definition = context.get(name)
            if isinstance(definition, dict):
                assert definition["@id"].removeprefix("prov:") in PROV_TERMS
                if definition["@type"] == "@id":
                    assert set(value if isinstance(value, list) else [value]) <= ids


def test_no_patient_data_is_in_graph_or_picture(store: Store) -> None:
    """A6: UIDs and digests only; the picture has not even UIDs and no dates."""
    with store.read() as session:
        analyses = provenance(session, STUDY)
    document, drawing = json.dumps(to_jsonld(analyses)), to_svg(picture_of(analyses), "title")
    for text in (document, drawing):
        assert "SECRET" not in text
    assert STUDY not in drawing
    assert not re.search(r"\d{4}-\d\d-\d\d|2\.25\.", drawing)


def test_the_picture_is_an_svg_that_loads_nothing_and_obeys_nobody(store: Store) -> None:
    """Markup in a model's name is text; no script, no link; black on white."""
    with store.read() as session:
        drawing = to_svg(picture_of(provenance(session, STUDY)), "a < b")
    root = fromstring(drawing)
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags == {"svg", "title", "rect", "text", "path"}
    assert set(re.findall(r"#[0-9a-f]{3,6}", drawing)) == {"#000", "#fff"}
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert "a < b" in words
    assert "<b>&bone 1.2" in words
    assert {"4 source images", "1 source image", "2 sr", "1 sc", "2 delivered", "not delivered", "committed"} <= {
        *words
    }
    assert "score 0.91 (limit 0.5)" in words


def test_boxes_do_not_overlap_and_arrows_go_to_the_right(store: Store) -> None:
    with store.read() as session:
        picture = picture_of(provenance(session, STUDY))
    for number, one in enumerate(picture.boxes):
        assert one.x >= 0
        assert one.x + BOX_W <= picture.width
        assert one.y + one.height <= picture.height
        for other in picture.boxes[number + 1 :]:
            apart = one.x != other.x or one.y + one.height < other.y or other.y + other.height < one.y
            assert apart
    assert picture.arrows
    assert all(end.x - start.x >= BOX_W + GAP_X for start, end in picture.arrows)


def test_arrows_tell_the_truth_about_what_went_where(store: Store) -> None:
    """What stood in for a result was not sent; copies come from the images and not from the result."""
    with store.read() as session:
        picture = picture_of(provenance(session, "2.25.1"))
    led = {(start.lines[-1], end.lines[0]) for start, end in picture.arrows}
    assert ("2 sr", "pacs") in led
    assert ("1 sc", "pacs") not in led
    assert ("generation 1", "research") in led
    assert not any(start.lines[0] == "research" for start, _ in picture.arrows)
    assert {start.lines[0] for start, end in picture.arrows if end.lines[0] == "analysis"} == {"volume", "model"}


def test_a_crowd_of_destinations_is_one_box(store: Store) -> None:
    with store.write() as session:
        for number in range(40):
            body = SUBJECT | {"assignment": 1, "peer": f"pacs-{number}", "instances": outputs("2.25.1")}
            append(session, Event.DELIVERED, body)
    with store.read() as session:
        picture = picture_of(provenance(session, "2.25.1"))
    words = [box.lines[0] for box in picture.boxes]
    assert "and 30 more" in words
    assert len(picture.boxes) < 30


def test_the_png_shows_the_same_boxes(store: Store) -> None:
    with store.read() as session:
        picture = picture_of(provenance(session, STUDY))
    pixels = np.asarray(to_png(picture, "title"))
    assert pixels.shape == (picture.height * 2, picture.width * 2)
    for box in picture.boxes:
        inside = pixels[box.y * 2 : (box.y + box.height) * 2, box.x * 2 : (box.x + BOX_W) * 2]
        assert (inside < 128).sum() > 100, "the box is empty"


def test_a_page_holds_the_picture_and_the_data_and_cannot_be_broken_out_of(store: Store) -> None:
    document = {"label": "</script><script>alert(1)</script>"}
    text = page("</title><script>", "<svg></svg>", document)
    assert text.count("<script") == 1
    data = re.search(r'<script type="application/ld\+json">(.*?)</script>', text)
    assert data
    assert json.loads(data[1]) == document

"""What each kind of PACS has in the end: a node with four peers of four profiles and a folder, real Orthancs behind."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.config import Peer
from dicomnode.config.results import PROFILES
from dicomnode.deliver.send import send_paths
from dicomnode.demo.phantoms import make_ct_head
from dicomnode.report.envelope import SERIES_NUMBERS
from tests.acceptance.eager_models import eager_routes, make_eager_models
from tests.acceptance.node_process import NodeProcess
from tests.acceptance.orthanc import Orthanc

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed"),
]

LIMIT_S = 400.0
State = dict[str, list[dict[str, Any]]]
SETTINGS = {
    "rich": 'profile = "viewer-rich"',
    "air": 'profile = "ihe-air"',
    "frames": 'objects = ["mf-sc"]',
    "reports": 'profile = "sr-only"',
}
"""What each peer is set to."""

DOCUMENTS = {"sr", "sr-regions"}
WANTED = {
    "rich": {"sc", "seg", "pm", "sr-volume", "pdf"} | DOCUMENTS,
    "air": {"seg", "pm", "ko", "sr-volume"} | DOCUMENTS,
    "frames": {"mf-sc"},
    "reports": DOCUMENTS,
}
"""What has to be there of a Series with findings, by the keys of SERIES_NUMBERS."""


@dataclass(frozen=True)
class Site:
    """After both studies: what each archive holds, what the folder of the second node holds, and the node's words."""

    analysed: str
    refused: str
    sources: frozenset[str]
    held: dict[str, list[Dataset]]
    second: list[Dataset]
    state: State

    def at(self, peer: str, study: str) -> list[Dataset]:
        return [one for one in self.held[peer] if study == one.StudyInstanceUID]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A study that is analysed and one that the volume gate refuses, sent once; the first one to a second node too."""
    folder = tmp_path_factory.mktemp("site")
    models = make_eager_models(folder / "models")
    good, bad = make_ct_head(seed=41), make_ct_head(seed=42)
    bad.datasets[4].ImageOrientationPatient = [1, 0, 0, 0, 0.8, 0.6]
    paths = good.write(folder / "good"), bad.write(folder / "bad")
    with ExitStack() as stack:
        archives = {name: stack.enter_context(Orthanc(folder / name, ae_title=name.upper())) for name in SETTINGS}
        state = _run(folder / "node", models, _peers(archives), paths)
        held = {name: _read(archive.download_all(_new(folder / f"{name}-held"))) for name, archive in archives.items()}
    (folder / "shelf").mkdir()
    shelf = f'[[peer]]\nname = "shelf"\nfolder = "{folder / "shelf"}"\n'
    told = shelf + eager_routes('["shelf"]') + '[results]\nprofile = "viewer-rich"\n'
    _run(folder / "second", models, told, paths[:1])
    second = _read((folder / "shelf").rglob("*.dcm"))
    uids = frozenset(str(dataset.SOPInstanceUID) for study in (good, bad) for dataset in study.datasets)
    studies = (str(study.datasets[0].StudyInstanceUID) for study in (good, bad))
    return Site(*studies, uids, held, second, state)


def _peers(archives: dict[str, Orthanc]) -> str:
    peers = "".join(
        f'[[peer]]\nname = "{name}"\nae_title = "{name.upper()}"\nhost = "127.0.0.1"\nport = {archive.dicom_port}\n'
        for name, archive in archives.items()
    )
    chosen = "".join(f'[results.peer."{name}"]\n{setting}\n' for name, setting in SETTINGS.items())
    return peers + eager_routes(str(list(archives)).replace("'", '"')) + chosen


def _run(
    folder: Path, models: Path, settings: str, studies: tuple[list[Path], ...]
) -> dict[str, list[dict[str, object]]]:
    """A fresh node that gets ``studies`` one after the other and delivers what comes of them."""
    node = NodeProcess(folder, 104, node=f'model_dir = "{models}"', routes=settings)
    target = Peer(name="node", ae_title="NODE", host="127.0.0.1", port=node.port)
    try:
        node.start()
        for paths in studies:
            assert all(answer.ok for answer in send_paths(paths, target, "SCANNER"))
        return _wait_pages(node, len(studies))
    finally:
        node.close()


def _wait_pages(node: NodeProcess, studies: int) -> State:
    """Wait until all is delivered, the pages about what was not analysed too: they come in a job of their own."""
    until = time.monotonic() + LIMIT_S
    while True:
        state = node.wait_settled(studies, LIMIT_S)
        if all(result["objects"] for series in state["recent"] for result in series["results"]):
            return state
        assert time.monotonic() < until, state["recent"]
        time.sleep(0.5)


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _read(paths: Iterator[Path] | list[Path]) -> list[Dataset]:
    return [dcmread(path) for path in paths]


def kinds(datasets: list[Dataset]) -> Counter[str]:
    """How many Instances there are of each document, told by its fixed Series Number."""
    names = {number: document for document, number in SERIES_NUMBERS.items()}
    return Counter(names[int(dataset.SeriesNumber)] for dataset in datasets)


def references(dataset: Dataset) -> set[str]:
    """Every Instance that a Dataset refers to."""
    return {str(element.value) for element in dataset.iterall() if element.keyword == "ReferencedSOPInstanceUID"}


@pytest.mark.parametrize("peer", SETTINGS)
def test_a_pacs_has_exactly_the_kinds_of_its_profile(peer: str, site: Site) -> None:
    found = kinds(site.at(peer, site.analysed))
    assert set(found) == WANTED[peer]
    assert found.get("sc", 21) == 21, "a montage and an overlay for each of 20 slices"
    assert all(count == 1 for document, count in found.items() if document != "sc")


def test_the_wanted_kinds_follow_the_profiles() -> None:
    """The table of this file leaves no kind of a profile out."""
    for peer, profile in (("rich", "viewer-rich"), ("air", "ihe-air"), ("reports", "sr-only")):
        assert set(PROFILES[profile]) <= WANTED[peer]  # type: ignore[index]


@pytest.mark.parametrize("peer", SETTINGS)
def test_every_reference_leads_to_a_source_or_to_a_result_at_the_same_pacs(peer: str, site: Site) -> None:
    there = {str(one.SOPInstanceUID) for one in site.held[peer]} | site.sources
    for one in site.held[peer]:
        assert references(one) <= there, kinds([one])


def test_one_finding_has_the_same_tracking_uid_in_every_object(site: Site) -> None:
    found = site.at("air", site.analysed)
    (seg,) = (one for one in found if one.Modality == "SEG")
    segments = {str(segment.TrackingUID) for segment in seg.SegmentSequence}
    assert segments
    for number in (SERIES_NUMBERS["sr-regions"], SERIES_NUMBERS["sr-volume"]):
        (document,) = (one for one in found if number == one.SeriesNumber)
        texts = {str(e.value) for e in document.iterall() if e.keyword == "UID"}
        assert segments <= texts


def test_a_fresh_node_gives_the_same_input_the_same_uids(site: Site) -> None:
    def uids(datasets: list[Dataset]) -> set[tuple[str, str]]:
        return {(str(one.SeriesInstanceUID), str(one.SOPInstanceUID)) for one in datasets}

    assert site.second
    assert uids(site.second) == uids(site.at("rich", site.analysed))


@pytest.mark.parametrize("peer", SETTINGS)
def test_a_series_that_a_gate_refused_is_one_status_page(peer: str, site: Site) -> None:
    """Whatever the profile: somebody at this PACS waits for an answer. It never says absent."""
    (page,) = site.at(peer, site.refused)
    assert kinds([page]) == {"page": 1}
    assert "not analysed" in str(page.ImageComments).lower()
    assert "no findings" not in str(page.ImageComments).lower()


def test_the_node_says_the_same_outcomes(site: Site) -> None:
    outcomes = {
        str(series["StudyInstanceUID"]): result["outcome"]
        for series in site.state["recent"]
        for result in series["results"]
    }
    assert outcomes == {site.analysed: "findings", site.refused: "not analysed"}


def test_results_of_findings_say_so(site: Site) -> None:
    """The root document states Present, and no object states Absent."""
    (root,) = (one for one in site.at("reports", site.analysed) if SERIES_NUMBERS["sr"] == one.SeriesNumber)
    values = {str(e.value[0].CodeMeaning) for e in root.iterall() if e.keyword == "ConceptCodeSequence" and e.value}
    assert "Present" in values
    assert "Absent" not in values

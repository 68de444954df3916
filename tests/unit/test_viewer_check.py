"""The viewer check's own parts, without a browser: it fetches what it knows, and cannot pass by mistake."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from dicomnode.report import build_results, to_bytes
from tests.report_fixtures import context, findings, no_findings, source
from tests.viewer.expected import expected_of
from tests.viewer.ohif import INTEGRITY, verified
from tests.viewer.picture import measured
from tests.viewer.serve import ViewerSite, viewer_settings

ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    """The viewer's site with a page and one script; its archive answers with the headers that it was asked with."""
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.html").write_text("the page")
    (tmp_path / "dist" / "app.js").write_text("the script")
    (tmp_path / "secret.txt").write_text("not the viewer's")
    site = ViewerSite(tmp_path / "dist", "http://archive", ORIGIN)
    archive = TestClient(Starlette(routes=[Route("/{path:path}", lambda asked: JSONResponse(_echo(asked)))]))
    site._session = _Session(archive)  # type: ignore[assignment]
    with TestClient(site.application) as client:
        yield client


class _Session:
    """Asks an application where ``requests`` would ask a server."""

    def __init__(self, archive: TestClient) -> None:
        self._archive = archive

    def get(self, address: str, headers: dict[str, str], timeout: float) -> object:
        return self._archive.get(address, headers=headers)


def _echo(request: Request) -> dict[str, str]:
    return {"path": str(request.url.path), "query": request.url.query, **dict(request.headers)}


def test_a_tarball_with_another_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="digest"):
        verified(b"something else", INTEGRITY)
    assert (
        verified(b"", "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==")
        == b""
    )


def test_every_path_without_a_file_is_the_page_of_the_viewer(client: TestClient) -> None:
    assert client.get("/viewer?StudyInstanceUIDs=1.2.3").text == "the page"
    assert client.get("/app.js").text == "the script"
    assert client.get("/..%2Fsecret.txt").text == "the page"


def test_every_answer_isolates_the_page(client: TestClient) -> None:
    """Workers with shared memory need both headers on every answer."""
    for path in ("/", "/app.js", "/app-config.js", "/dicom-web/studies"):
        headers = client.get(path).headers
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"


def test_the_archive_is_told_the_origin_that_the_browser_knows(client: TestClient) -> None:
    told = client.get("/dicom-web/studies?limit=1", headers={"Accept": "application/dicom+json"}).json()
    assert told["forwarded"] == "host=127.0.0.1:8000;proto=http"
    assert (told["path"], told["query"]) == ("/dicom-web/studies", "limit=1")
    assert told["accept"] == "application/dicom+json"


def test_the_settings_name_one_source_on_our_own_origin(client: TestClient) -> None:
    (one,) = viewer_settings()["dataSources"]  # type: ignore[misc]
    assert one["configuration"]["qidoRoot"] == one["configuration"]["wadoRoot"] == "/dicom-web"  # type: ignore[index]
    assert client.get("/app-config.js").text.startswith("window.config = {")


def test_what_has_to_be_seen_is_read_from_the_objects(tmp_path: Path) -> None:
    volume, headers = source("CT", 2)
    built = build_results(volume, headers, findings(volume, ((0, 1), (1,))), context(), frozenset({"sc", "sr", "seg"}))
    for number, one in enumerate(built):
        (tmp_path / f"{number}.dcm").write_bytes(to_bytes(one.dataset))
    found = expected_of(tmp_path.iterdir())
    assert [one.kind for one in found] == ["capture", "root report", "regions report", "segmentation"]
    regions, segments = found[2:]
    assert len(regions.texts) == 3 or len(regions.texts) == 2
    assert all("RESEARCH" in text for text in (*regions.texts, *segments.texts))
    assert len(segments.texts) == 2


def test_a_result_without_findings_has_no_region_to_see(tmp_path: Path) -> None:
    volume, headers = source("DX", 1)
    for number, one in enumerate(build_results(volume, headers, no_findings(volume), context(), frozenset({"sr"}))):
        (tmp_path / f"{number}.dcm").write_bytes(to_bytes(one.dataset))
    assert [one.kind for one in expected_of(tmp_path.iterdir())] == ["root report"]


@pytest.mark.parametrize(
    ("colour", "shares"), [("black", (0, 0, 0)), ("grey", (1, 0, 0)), ("white", (1, 1, 0)), ("orange", (1, 0, 1))]
)
def test_grey_is_not_taken_for_colour(colour: str, shares: tuple[float, float, float]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    picture = measured(file.getvalue())
    assert (picture.lit, picture.white, picture.coloured) == shares

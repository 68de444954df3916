"""One origin for viewer and archive: the viewer's files, our settings for it, and DICOMweb handed on to Orthanc."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
import uvicorn
from requests.adapters import HTTPAdapter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from urllib3.util import Retry

from tests.ports import free_port

DICOM_WEB = "/dicom-web"
START_S, ARCHIVE_S = 20.0, 120.0
_HANDED_ON = ("accept", "content-type")
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""The viewer decodes in workers with shared memory, which browsers give to isolated pages only."""


class ViewerSite:
    """The web application. ``dist``: the viewer's files; ``archive``: Orthanc's address; ``origin``: our own."""

    def __init__(self, dist: Path, archive: str, origin: str) -> None:
        self._dist, self._archive = dist.resolve(), archive
        self._forwarded = "host={};proto={}".format(*reversed(origin.split("://")))
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.mount(archive, HTTPAdapter(max_retries=Retry(5, backoff_factor=0.1, allowed_methods=["GET"])))
        routes = [
            Route("/app-config.js", self._settings),
            Route(DICOM_WEB + "/{path:path}", self._hand_on, methods=["GET", "POST"]),
            Route("/{path:path}", self._file),
        ]
        self.application = Starlette(routes=routes)

    def _settings(self, _: Request) -> Response:
        text = f"window.config = {json.dumps(viewer_settings(), indent=1)};\n"
        return Response(text, media_type="text/javascript", headers=_ISOLATION)

    def _hand_on(self, request: Request) -> Response:
        """``Forwarded`` (RFC 7239): Orthanc writes bulk data addresses with the origin that the browser knows.

        A busy Orthanc drops a connection now and then before it answers: the question is put again.
        """
        headers = {name: request.headers[name] for name in _HANDED_ON if name in request.headers}
        address = f"{self._archive}{request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        headers |= {"Forwarded": self._forwarded, "Connection": "close"}
        answer = self._session.get(address, headers=headers, timeout=ARCHIVE_S)
        told = {"Content-Type": answer.headers.get("Content-Type", "application/octet-stream")}
        return Response(answer.content, answer.status_code, headers=_ISOLATION | told)

    def _file(self, request: Request) -> Response:
        """A file of the viewer, for the browser to keep; every other path is a page of its single-page application."""
        wanted = (self._dist / request.path_params["path"]).resolve()
        inside = wanted.is_file() and wanted.is_relative_to(self._dist)
        kept = {"Cache-Control": "max-age=3600"} if inside else {}
        return FileResponse(wanted if inside else self._dist / "index.html", headers=_ISOLATION | kept)


def viewer_settings() -> dict[str, object]:
    """What OHIF has to be told: one DICOMweb source on its own origin, no pop-ups, two workers."""
    source = {
        "friendlyName": "Orthanc",
        "name": "orthanc",
        "qidoRoot": DICOM_WEB,
        "wadoRoot": DICOM_WEB,
        "wadoUriRoot": "/wado",
        "imageRendering": "wadors",
        "thumbnailRendering": "wadors",
        "qidoSupportsIncludeField": True,
        "supportsFuzzyMatching": False,
        "supportsWildcard": True,
        "enableStudyLazyLoad": True,
        "omitQuotationForMultipartRequest": True,
        "bulkDataURI": {"enabled": True},
    }
    namespace = "@ohif/extension-default.dataSourcesModule.dicomweb"
    return {
        "routerBasename": None,
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 2,
        "showLoadingIndicator": True,
        "showCPUFallbackMessage": False,
        "showWarningMessageForCrossOrigin": False,
        "strictZSpacingForVolumeViewport": True,
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": "archive",
        "dataSources": [{"namespace": namespace, "sourceName": "archive", "configuration": source}],
    }


@contextmanager
def served(dist: Path, archive: str) -> Iterator[str]:
    """Serve until the block ends; yields the origin."""
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    site = ViewerSite(dist, archive, origin)
    server = uvicorn.Server(uvicorn.Config(site.application, "127.0.0.1", port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait_started(server)
        yield origin
    finally:
        server.should_exit = True
        thread.join(START_S)


def _wait_started(server: uvicorn.Server) -> None:
    until = time.monotonic() + START_S
    while not server.started:
        if time.monotonic() > until:
            raise RuntimeError("the viewer's web server did not start")
        time.sleep(0.05)

"""A small origin server for STOW-RS on loopback (PS3.18 10.5), over HTTP or TLS, whose answers a test chooses."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicomnode.config import StowPeer

JSON = {"Content-Type": "application/dicom+json"}


@dataclass(frozen=True)
class Part:
    """One Instance of a request, and its bytes as they came."""

    SOPInstanceUID: str
    SOPClassUID: str
    content: bytes


@dataclass(frozen=True)
class Reply:
    """An HTTP answer."""

    status: int = 200
    payload: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


def response_module(stored: dict[str, int | None], failed: dict[str, int]) -> bytes:
    """A Store Instances Response Module (PS3.18 table I.1-1) in JSON."""

    def items(reasons: dict[str, int | None], tag: str) -> list[dict[str, Any]]:
        made = []
        for uid, reason in reasons.items():
            item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
            if reason is not None:
                item[tag] = {"vr": "US", "Value": [reason]}
            made.append(item)
        return made

    sequences = {"00081199": items(stored, "00081196"), "00081198": items(failed, "00081197")}
    return json.dumps({tag: {"vr": "SQ", "Value": made} for tag, made in sequences.items() if made}).encode()


def replying(stored: Sequence[Part], failed: dict[str, int], status: int | None = None) -> Reply:
    """What a conforming server answers: 200, 202 or 409 (PS3.18 table 10.5.3-1)."""
    own = 200 if not failed else 202 if stored else 409
    names = {part.SOPInstanceUID: None for part in stored}
    return Reply(own if status is None else status, response_module(names, failed))


Answer = Callable[["StowServer", list[Part]], Reply]


def storing(server: StowServer, parts: list[Part]) -> Reply:
    """Take every Instance whose SOP Class the server supports."""
    good = [part for part in parts if server.classes is None or part.SOPClassUID in server.classes]
    server.received += good
    return replying(good, {part.SOPInstanceUID: 0x0122 for part in parts if part not in good})


class StowServer:
    """``with StowServer() as server``: a thread per request. ``requests``: method, path, headers of each."""

    def __init__(
        self, answer: Answer = storing, *, classes: Sequence[str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.answer, self.classes, self._tls = answer, classes, tls
        self.received: list[Part] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    def __enter__(self) -> StowServer:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order in which they were stored."""
        return [part.SOPInstanceUID for part in self.received]

    def peer(self, name: str = "pacs", **changes: Any) -> StowPeer:
        """This server as a configured peer."""
        scheme = "http" if self._tls is None else "https"
        values = {"name": name, "stow": f"{scheme}://127.0.0.1:{self.port}/dicom-web", **changes}
        return StowPeer.model_validate(values)


class _Handler(BaseHTTPRequestHandler):
    owner: StowServer

    def do_POST(self) -> None:
        self._note()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) == int(self.headers["Content-Length"]):
            self._write(self.owner.answer(self.owner, parse(self.headers["Content-Type"], body)))

    def do_GET(self) -> None:
        self._note()
        self._write(self.owner.answer(self.owner, []))

    def _note(self) -> None:
        self.owner.requests.append((self.command, self.path, dict(self.headers.items())))

    def _write(self, reply: Reply) -> None:
        with suppress(ConnectionError):
            self._write_all(reply)

    def _write_all(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(reply.payload))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.payload)

    def log_message(self, *_: object) -> None:
        """Silence."""


def parse(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart/related request, by the standard library's parser."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    parts = []
    for part in message.iter_parts():
        assert part.get_content_type() == "application/dicom"
        content = part.get_payload(decode=True)
        dataset = dcmread(BytesIO(content), stop_before_pixels=True)
        parts.append(Part(str(dataset.SOPInstanceUID), str(dataset.SOPClassUID), content))
    return parts


@dataclass(frozen=True)
class Authority:
    """A certificate that signs itself, for 127.0.0.1: authority, server and client in one."""

    cert: Path
    key: Path

    def server(self, *, mutual: bool = False) -> ssl.SSLContext:
        """A server's context; ``mutual``: clients have to show a certificate too."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.cert, self.key)
        if mutual:
            context.load_verify_locations(self.cert)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(folder: Path) -> Authority:
    """Ask openssl for a certificate; skips the test where there is none."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    made = Authority(folder / "cert.pem", folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=pacs", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(made.key), "-out", str(made.cert)], check=True, capture_output=True)
    return made

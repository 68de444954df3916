"""STOW-RS against servers that answer, refuse, redirect, stall or lie, and a token that nobody else learns."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dicomnode.config import StowPeer
from dicomnode.deliver import stow, web
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.send import read_outbound
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.deliver.stow import store_instances
from dicomnode.deliver.worker import Deliverer
from dicomnode.dicom.status import Disposition
from tests.integration.deliver_fixtures import SR, Outbox, config, make_file
from tests.integration.stow_fixtures import (
    Authority,
    Part,
    Reply,
    StowServer,
    make_authority,
    replying,
    response_module,
    storing,
)

PATIENT = SendLimits(connect_s=60.0, acse_s=60.0, dimse_s=60.0, stall_s=60.0, slowest_bytes_s=1e9)
TOKEN = "sEcReT-bearer-token.0123456789"
PERMANENT, TRANSIENT = Disposition.PERMANENT, Disposition.TRANSIENT
STORED, WARNING = Disposition.STORED, Disposition.STORED_WITH_WARNING


def outbound(path: Path, **options) -> OutboundFile:
    make_file(path, **options)
    file = read_outbound(path)
    assert isinstance(file, OutboundFile)
    return file


def some(folder: Path, count: int = 3, **options) -> list[OutboundFile]:
    return [outbound(folder / f"{index}.dcm", **options) for index in range(count)]


def store(server: StowServer, files: list[OutboundFile], **changes) -> list[SentStatus]:
    return list(store_instances(server.peer(**changes), files, PATIENT))


def always(reply: Reply) -> Callable[[StowServer, list[Part]], Reply]:
    return lambda *_: reply


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(mode=0o600)
    path.write_text(f"{TOKEN}\n")
    return path


def test_a_request_is_a_multipart_message_of_unaltered_files_to_studies(tmp_path: Path) -> None:
    files = [outbound(tmp_path / "a.dcm", pixels=640_000), outbound(tmp_path / "b.dcm", sop_class=SR)]
    with StowServer() as server:
        answers = store(server, files)
    assert [(answer.disposition, answer.status) for answer in answers] == [(STORED, 0)] * 2
    ((method, path, headers),) = server.requests
    assert (method, path) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"; boundary="')
    assert headers["Accept"] == "application/dicom+json"
    assert "Authorization" not in headers
    sums = [sha256(part.content).hexdigest() for part in server.received]
    assert sums == [sha256(file.path.read_bytes()).hexdigest() for file in files]


@pytest.mark.parametrize("status", [200, 202, 409])
@pytest.mark.parametrize(
    ("failure", "disposition", "refused"),
    [
        (0xA700, TRANSIENT, False),
        (0x0110, TRANSIENT, False),
        (0xA900, PERMANENT, False),
        (0xC000, PERMANENT, False),
        (0xC122, PERMANENT, False),
        (0x0122, PERMANENT, True),
        (0x0118, PERMANENT, True),
        (0x0111, WARNING, False),
    ],
)
def test_failed_sop_sequence_is_read_whatever_the_http_status(
    tmp_path: Path, status: int, failure: int, disposition: Disposition, refused: bool
) -> None:
    """Orthanc answers 200 when instances failed."""
    files = some(tmp_path)

    def answer(_: StowServer, parts: list[Part]) -> Reply:
        return replying([parts[0], parts[2]], {parts[1].SOPInstanceUID: failure}, status)

    with StowServer(answer) as server:
        answers = store(server, files)
    assert [answer.disposition for answer in answers] == [STORED, disposition, STORED]
    assert (answers[1].status, answers[1].refused) == (failure, refused)
    assert f"0x{failure:04X}" in answers[1].reason


def test_a_warning_reason_is_stored_with_warning(tmp_path: Path) -> None:
    def answer(_: StowServer, parts: list[Part]) -> Reply:
        return Reply(202, response_module({part.SOPInstanceUID: 0xB000 for part in parts}, {}))

    with StowServer(answer) as server:
        (sent,) = store(server, some(tmp_path, 1))
    assert (sent.disposition, sent.status) == (WARNING, 0xB000)
    assert sent.reason == "0xB000 coercion of data elements"


@pytest.mark.parametrize(
    ("status", "disposition", "reason"),
    [
        (400, PERMANENT, "HTTP 400 Bad Request"),
        (401, TRANSIENT, "HTTP 401 Unauthorized: its token is missing, expired or wrong"),
        (403, TRANSIENT, "HTTP 403 Forbidden: its token does not allow storing"),
        (404, TRANSIENT, "HTTP 404 Not Found: check its URL"),
        (409, PERMANENT, "HTTP 409 Conflict: a conflict that it does not explain"),
        (413, PERMANENT, "too large for it"),
        (415, PERMANENT, "HTTP 415 Unsupported Media Type"),
        (429, TRANSIENT, "HTTP 429 Too Many Requests"),
        (500, TRANSIENT, "HTTP 500 Internal Server Error"),
        (503, TRANSIENT, "HTTP 503 Service Unavailable"),
        (599, TRANSIENT, "HTTP 599 unknown"),
        (202, TRANSIENT, "HTTP 202 Accepted"),
        (200, STORED, "0x0000 success"),
    ],
)
def test_an_http_status_alone_has_a_meaning_and_a_plain_reason(
    tmp_path: Path, status: int, disposition: Disposition, reason: str
) -> None:
    with StowServer(always(Reply(status))) as server:
        (sent,) = store(server, some(tmp_path, 1))
    assert sent.disposition is disposition
    assert reason in sent.reason
    assert not sent.refused


@pytest.mark.parametrize("payload", [b"<NativeDicomModel/>", b"[" * 100_000, b'"stored"', b"{}x", b"\xff\xfe"])
def test_success_in_an_answer_that_cannot_be_read_is_stored_with_warning(tmp_path: Path, payload: bytes) -> None:
    with StowServer(always(Reply(200, payload))) as server:
        answers = store(server, some(tmp_path))
    assert [answer.disposition for answer in answers] == [WARNING] * 3
    assert answers[0].reason == "HTTP 200 OK, in an answer that cannot be read"


@pytest.mark.parametrize(
    "payload",
    [b"{}", b"[]", b'{"00081199": 5, "00081198": {"Value": {}}}', b'{"00081198": {"vr": "SQ", "Value": [{}, 3]}}'],
)
def test_success_that_names_nobody_is_success(tmp_path: Path, payload: bytes) -> None:
    with StowServer(always(Reply(200, payload))) as server:
        assert [answer.disposition for answer in store(server, some(tmp_path))] == [STORED] * 3


def test_an_instance_that_the_answer_leaves_out_is_not_taken_for_stored(tmp_path: Path) -> None:
    with StowServer(lambda _, parts: replying(parts[:2], {})) as server:
        answers = store(server, some(tmp_path))
    assert [answer.disposition for answer in answers] == [STORED, STORED, TRANSIENT]
    assert answers[2].reason == "the answer does not name this instance"


@pytest.mark.parametrize("value", ["272", " 272 ", 272, "0110x", None, "9" * 5000])
def test_a_reason_that_is_text_or_nonsense_harms_nobody(tmp_path: Path, value: object) -> None:
    def answer(_: StowServer, parts: list[Part]) -> Reply:
        uid = {"vr": "UI", "Value": [parts[0].SOPInstanceUID]}
        item = {"00081155": uid, "00081197": {"vr": "US", "Value": [value]}}
        return Reply(409, json.dumps([{"00081198": {"vr": "SQ", "Value": [item]}}]).encode())

    with StowServer(answer) as server:
        (sent,) = store(server, some(tmp_path, 1))
    known = str(value).strip() == "272"
    assert (sent.status, sent.disposition) == ((0x0110, TRANSIENT) if known else (None, PERMANENT))


def test_one_bad_instance_does_not_spoil_a_request_that_fails_as_a_whole(tmp_path: Path) -> None:
    files = some(tmp_path, 5)
    bad = files[3].SOPInstanceUID

    def answer(server: StowServer, parts: list[Part]) -> Reply:
        return Reply(400) if bad in {part.SOPInstanceUID for part in parts} else storing(server, parts)

    with StowServer(answer) as server:
        answers = store(server, files)
    assert [answer.disposition for answer in answers] == [STORED, STORED, STORED, PERMANENT, STORED]
    assert server.uids == [file.SOPInstanceUID for file in files if file.SOPInstanceUID != bad]
    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [202, 400, 409])
def test_a_failed_request_that_explains_some_is_made_again_for_the_others_alone(tmp_path: Path, status: int) -> None:
    """Orthanc answers 400 with a list of what it stored when one part is no DICOM file."""
    files = some(tmp_path, 4)
    bad = files[1].SOPInstanceUID

    def answer(server: StowServer, parts: list[Part]) -> Reply:
        if bad not in {part.SOPInstanceUID for part in parts}:
            return storing(server, parts)
        server.received += [part for part in parts[:1] if len(parts) > 1]
        return replying(parts[:1], {}, status) if len(parts) > 1 else Reply(400)

    with StowServer(answer) as server:
        answers = {sent.file: sent.disposition for sent in store(server, files)}
    assert [answers[file] for file in files] == [STORED, PERMANENT, STORED, STORED]
    assert sorted(server.uids) == sorted(file.SOPInstanceUID for file in files if file.SOPInstanceUID != bad)
    assert len(server.requests) == 4


def test_requests_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with StowServer() as server:
        assert all(answer.accepted for answer in store(server, some(tmp_path / "many", stow.MAX_INSTANCES + 1)))
        assert len(server.requests) == 2
    files = some(tmp_path / "big", 3, pixels=64_000)
    monkeypatch.setattr(stow, "MAX_BYTES", 100_000)
    with StowServer() as server:
        assert all(answer.accepted for answer in store(server, files))
    assert [int(headers["Content-Length"]) < 100_000 for _, _, headers in server.requests] == [True] * 3


def test_a_server_that_is_down_in_the_middle_leaves_the_rest_untried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow, "MAX_INSTANCES", 1)

    def answer(server: StowServer, parts: list[Part]) -> Reply:
        return storing(server, parts) if len(server.requests) == 1 else Reply(503)

    with StowServer(answer) as server:
        answers = store(server, some(tmp_path, 4))
    assert [answer.lost for answer in answers] == [False, True, True, True]
    assert [answer.tried for answer in answers] == [True, True, False, False]
    assert len(server.requests) == 2


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    outbox.add_result(outbox.add_study(), "pacs", kinds=["sc"])
    with StowServer(always(Reply(503, headers={"Retry-After": "120"}))) as server:
        worker = Deliverer(config(server.peer()), outbox.store, outbox.spool, "d", outbox.clock, limits=PATIENT)
        assert worker.step()
        assert outbox.jobs()[0].not_before >= outbox.now + 120
        assert not worker.step(), "what else waits for it waits too"
        outbox.now += 121
        server.answer = storing
        assert worker.step()
        assert worker.step()
    assert outbox.states() == ["delivered"] * 2


@pytest.mark.parametrize("wanted", ["soon", "-5", "", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400])
def test_a_strange_retry_after_never_holds_for_more_than_an_hour(tmp_path: Path, wanted: str) -> None:
    with StowServer(always(Reply(503, headers={"Retry-After": wanted}))) as server:
        (sent,) = store(server, some(tmp_path, 1))
    assert sent.retry_after_s in {0.0, web.MAX_RETRY_AFTER_S}


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[StowPeer]:
    """A server of raw bytes: ``serve`` gets the first connection."""
    done = threading.Event()

    def work() -> None:
        opened, _ = listening.accept()
        with opened:
            serve(opened)
            done.wait(120)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield StowPeer(name="pacs", stow=f"http://127.0.0.1:{listening.getsockname()[1]}/")
        finally:
            done.set()
            thread.join(60)


def drip(opened: socket.socket) -> None:
    opened.recv(100)
    opened.sendall(b"HTTP/1.1 200 OK\r\n")
    try:
        for _ in range(1200):
            opened.sendall(b"X-Slow: 1\r\n")
            time.sleep(0.1)
    except OSError:
        return


@pytest.mark.parametrize(
    ("serve", "count", "reason"),
    [
        (lambda opened: None, 1, "no complete answer within 1 s"),
        (lambda opened: None, 8, "the peer stalled: it reads no more of the request"),
        (drip, 1, "no complete answer within 1 s"),
        (lambda opened: opened.sendall(b"I am no web server\r\n\r\n"), 1, "the peer does not speak HTTP"),
        (lambda opened: opened.shutdown(socket.SHUT_RDWR), 1, "the peer closed the connection"),
    ],
    ids=["never answers", "never reads", "drips", "speaks something else", "hangs up"],
)
def test_a_server_that_misbehaves_is_given_up_in_time_with_the_reason(
    tmp_path: Path, serve: Callable[[socket.socket], None], count: int, reason: str
) -> None:
    files = some(tmp_path, count, pixels=64 if count == 1 else 4_000_000)
    hasty = {"dimse_s": 1.0} if "within 1 s" in reason else {"stall_s": 1.0} if "stalled" in reason else {}
    limits = replace(PATIENT, **hasty)  # the others have to answer
    started = time.monotonic()
    with listener(serve) as peer:
        answers = list(store_instances(peer, files, limits))
    assert all(sent.lost for sent in answers)
    assert {sent.reason for sent in answers} == {reason}
    assert time.monotonic() - started < 60


def test_an_early_refusal_is_read_although_the_server_hung_up_on_the_rest(tmp_path: Path) -> None:
    def refuse(opened: socket.socket) -> None:
        opened.recv(100)
        opened.sendall(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        opened.shutdown(socket.SHUT_WR)
        while opened.recv(1 << 20):
            pass

    with listener(refuse) as peer:
        (sent,) = store_instances(peer, [outbound(tmp_path / "a.dcm", pixels=640_000)], PATIENT)
    assert sent.disposition is PERMANENT
    assert "413" in sent.reason


def test_an_endless_answer_is_not_read_to_its_end(tmp_path: Path) -> None:
    with StowServer(always(Reply(200, b" " * (web.MAX_ANSWER + 1)))) as server:
        (sent,) = store(server, some(tmp_path, 1))
    assert sent.disposition is WARNING
    assert "cannot be read" in sent.reason


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "connection refused"),
        ("http://pacs.invalid/", "the host name does not resolve"),
        ("http://[::1/", "the URL of this peer is not valid"),
        ("http://127.0.0.1:99999/", "the URL of this peer is not valid"),
    ],
)
def test_nobody_there_is_transient_with_the_reason(tmp_path: Path, url: str, reason: str) -> None:
    answers = list(store_instances(StowPeer(name="p", stow=url), some(tmp_path), PATIENT))
    assert [(answer.reason, answer.lost, answer.tried) for answer in answers] == [(reason, True, False)] * 3


def test_no_proxy_of_the_environment_sees_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with StowServer() as server:
        assert store(server, some(tmp_path, 1))[0].accepted


def test_a_redirect_is_told_and_never_followed(tmp_path: Path, authority: Authority, token_file: Path) -> None:
    with StowServer() as elsewhere:
        away = Reply(307, headers={"Location": f"http://127.0.0.1:{elsewhere.port}/dicom-web/studies"})
        with StowServer(always(away), tls=authority.server()) as server:
            (sent,) = store(server, some(tmp_path, 1), token_file=token_file, tls={"ca": authority.cert})
    assert sent.lost
    assert sent.reason == "HTTP 307 Temporary Redirect: it redirects, correct its URL"
    assert elsewhere.requests == []


def test_the_token_is_read_anew_for_every_request(tmp_path: Path, authority: Authority, token_file: Path) -> None:
    def answer(server: StowServer, parts: list[Part]) -> Reply:
        good = server.requests[-1][2].get("Authorization") == f"Bearer {TOKEN}"
        return storing(server, parts) if good else Reply(401)

    token_file.write_text("old\n")
    with StowServer(answer, tls=authority.server()) as server:
        changes = {"token_file": token_file, "tls": {"ca": authority.cert}}
        first = store(server, some(tmp_path), **changes)
        assert [sent.reason for sent in first] == ["HTTP 401 Unauthorized: its token is missing, expired or wrong"] * 3
        assert all(sent.lost for sent in first)
        token_file.write_text(TOKEN)
        assert all(sent.accepted for sent in store(server, some(tmp_path), **changes))


def test_a_token_of_the_environment(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    with StowServer(tls=authority.server()) as server:
        changes = {"token_env": "PACS_TOKEN", "tls": {"ca": authority.cert}}
        (sent,) = store(server, some(tmp_path, 1), **changes)
        assert sent.reason == "the environment variable PACS_TOKEN is empty or missing"
        monkeypatch.setenv("PACS_TOKEN", TOKEN)
        assert store(server, some(tmp_path, 1), **changes)[0].accepted
    assert server.requests[-1][2]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("mode", "content", "reason"),
    [
        (0o640, TOKEN, "the token file is open to others: its mode has to be 0600 or stricter"),
        (0o604, TOKEN, "the token file is open to others: its mode has to be 0600 or stricter"),
        (0o600, "", "the token file is empty or missing"),
        (0o600, f"{TOKEN}\r\nX-Evil: 1", "the token file does not hold a bearer token"),
        (0o600, f"Bearer {TOKEN}", "the token file does not hold a bearer token"),
        (0o600, None, "the token file cannot be read: No such file or directory"),
    ],
)
def test_a_token_that_cannot_be_used_is_told_without_a_word_of_it(
    tmp_path: Path, authority: Authority, token_file: Path, mode: int, content: str | None, reason: str
) -> None:
    if content is None:
        token_file.unlink()
    else:
        token_file.write_text(content)
        token_file.chmod(mode)
    with StowServer(tls=authority.server()) as server:
        (sent,) = store(server, some(tmp_path, 1), token_file=token_file, tls={"ca": authority.cert})
    assert (sent.reason, sent.lost) == (reason, True)
    assert server.requests == []


def test_no_failure_shows_the_token(
    tmp_path: Path, authority: Authority, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    shown = []
    for reply in (Reply(401), Reply(500, TOKEN.encode()), Reply(302, headers={"Location": f"https://x/{TOKEN}"})):
        with StowServer(always(reply), tls=authority.server()) as server:
            shown += store(server, some(tmp_path, 2), token_file=token_file, tls={"ca": authority.cert})
    gone = server.peer(token_file=token_file, tls={"ca": authority.cert})
    shown += store_instances(gone, some(tmp_path, 1), PATIENT)
    assert TOKEN not in repr(shown) + caplog.text
    with pytest.raises(web.Transient) as raised:
        web.get(gone, "/studies", PATIENT)
    chain: BaseException | None = raised.value
    while chain is not None:
        assert TOKEN not in repr(chain)
        chain = chain.__cause__ or chain.__context__


def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path, authority: Authority) -> None:
    with StowServer(tls=authority.server()) as server:
        (unknown,) = store(server, some(tmp_path, 1))
        assert store(server, some(tmp_path, 1), tls={"ca": authority.cert})[0].accepted
    assert unknown.lost
    assert unknown.reason.startswith("TLS: the certificate of the peer is not valid")
    assert len(server.requests) == 1


def test_a_certificate_for_another_host_is_refused(tmp_path: Path, authority: Authority) -> None:
    with StowServer(tls=authority.server()) as server:
        peer = StowPeer(name="p", stow=f"https://localhost:{server.port}/", tls={"ca": authority.cert})
        (sent,) = store_instances(peer, some(tmp_path, 1), PATIENT)
    assert sent.lost
    assert sent.reason.startswith("TLS: ")


def test_mutual_tls_and_missing_files(tmp_path: Path, authority: Authority) -> None:
    both = {"ca": authority.cert, "cert": authority.cert, "key": authority.key}
    with StowServer(tls=authority.server(mutual=True)) as server:
        assert store(server, some(tmp_path, 1), tls=both)[0].accepted
        (without,) = store(server, some(tmp_path, 1), tls={"ca": authority.cert})
        (missing,) = store(server, some(tmp_path, 1), tls={**both, "key": tmp_path / "none.pem"})
    assert without.lost
    assert missing.reason.startswith("TLS: the certificate or key files of this peer cannot be used: key ")


def test_tls_is_at_least_1_2(tmp_path: Path, authority: Authority) -> None:
    old = authority.server()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with StowServer(tls=old) as server:
        (sent,) = store(server, some(tmp_path, 1), tls={"ca": authority.cert})
    assert sent.lost
    assert sent.reason.startswith("TLS: ")


def test_a_file_that_changes_while_it_is_sent_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = some(tmp_path)
    whole = files[1].path.read_bytes()
    made = stow.MultipartFiles

    def cut(paths: list[Path]):
        message = made(paths)
        files[1].path.write_bytes(whole[:-10])
        return message

    with StowServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(stow, "MultipartFiles", cut)
            answers = store(server, files)
        assert {answer.reason for answer in answers} == {"the file changed while it was sent"}
        assert all(answer.lost for answer in answers)
        files[1].path.write_bytes(whole)
        assert all(answer.accepted for answer in store(server, files))
    assert server.uids == [file.SOPInstanceUID for file in files]


def test_a_web_page_in_place_of_an_answer_is_not_taken_for_stored(tmp_path: Path) -> None:
    """A login page, or a site in the place of the DICOMweb server, says 200 to everything."""
    reply = Reply(200, b"<!doctype html><title>Log in</title>", {"Content-Type": "text/html; charset=utf-8"})
    with StowServer(always(reply)) as server:
        (sent,) = store(server, some(tmp_path, 1))
    assert (sent.disposition, sent.status) == (TRANSIENT, None)
    assert sent.reason == "HTTP 200 OK, with a web page: it is no DICOMweb server, check its URL"


@pytest.mark.parametrize("size", [b"-1", b"-5", b"five"])
def test_a_chunk_size_that_lies_fills_no_memory_and_loses_nothing(tmp_path: Path, size: bytes) -> None:
    """With a chunk size of -1 the library's read takes everything that comes."""
    sent_bytes = 0

    def flood(opened: socket.socket) -> None:
        nonlocal sent_bytes
        opened.recv(1 << 20)
        opened.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n")
        with suppress(OSError):
            while sent_bytes < 16 * web.MAX_ANSWER:
                sent_bytes += opened.send(b" " * (1 << 20))

    with listener(flood) as peer:
        (sent,) = store_instances(peer, [outbound(tmp_path / "a.dcm")], PATIENT)
    assert sent.disposition in {TRANSIENT, WARNING}
    assert "internal" not in sent.reason
    assert sent_bytes < 16 * web.MAX_ANSWER


def test_a_server_that_fails_while_instances_are_sent_alone_is_not_asked_for_each_of_them(tmp_path: Path) -> None:
    """Fifty time limits in a row would keep the lane of this destination, and its worker, for an hour."""

    def answer(server: StowServer, parts: list[Part]) -> Reply:
        return Reply(409) if len(parts) > 1 else Reply(503)

    files = some(tmp_path, 5)
    with StowServer(answer) as server:
        answers = store(server, files)
    assert len(server.requests) == 2
    assert [sent.tried for sent in answers] == [True, False, False, False, False]
    assert all(sent.disposition is TRANSIENT for sent in answers)

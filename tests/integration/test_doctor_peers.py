"""``doctor`` reaches every kind of peer, says what is wrong and how to mend it, and shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.config import FolderPeer, StowPeer, parse_config
from dicomnode.deliver.association import SendLimits
from dicomnode.node import peer_checks
from dicomnode.node.build import Blueprint
from dicomnode.node.doctor import diagnose
from dicomnode.node.peer_checks import check_peer
from tests.integration.deliver_fixtures import FakePacs
from tests.integration.stow_fixtures import Reply, StowServer, make_authority

TOKEN = "sEcReT-bearer-token.0123456789"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that answers is given the time, on a busy machine too."""
    monkeypatch.setattr(peer_checks, "_QUICK", SendLimits(dimse_s=60.0, acse_s=60.0, stall_s=60.0))


def test_an_entity_that_answers_and_one_that_does_not() -> None:
    with FakePacs() as pacs:
        assert check_peer(pacs.peer(), "NODE").ok
        stranger = check_peer(pacs.peer(ae_title="OTHER"), "NODE")
    assert stranger.ok is False
    assert "it must know NODE" in stranger.mend


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (204, True), (401, False), (403, False), (404, None), (501, None), (503, False)]
)
def test_an_origin_server_by_its_answer_to_a_query_about_nobody(status: int, ok: bool | None) -> None:
    with StowServer(lambda *_: Reply(status)) as server:
        check = check_peer(server.peer(), "NODE")
    assert check.ok is ok
    assert f"HTTP {status}" in check.found
    assert bool(check.mend) is not (ok is True)
    ((method, path, _),) = server.requests
    assert (method, path) == ("GET", "/dicom-web/studies?StudyInstanceUID=2.25.0&limit=1")


def test_an_origin_server_that_is_not_there() -> None:
    check = check_peer(StowPeer(name="p", stow="http://127.0.0.1:1/dicom-web"), "NODE")
    assert check.ok is False
    assert check.found == "http://127.0.0.1:1/dicom-web: connection refused"


def test_a_token_file_that_others_can_read_is_a_fault_before_anything_is_sent(tmp_path: Path) -> None:
    authority = make_authority(tmp_path / "tls")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    with StowServer(lambda *_: Reply(200, b"[]"), tls=authority.server()) as server:
        peer = server.peer(token_file=token, tls={"ca": authority.cert})
        check = check_peer(peer, "NODE")
        assert check.ok is False
        assert "open to others" in check.found
        assert "chmod 600" in check.mend
        assert server.requests == []
        token.chmod(0o600)
        mended = check_peer(peer, "NODE")
    assert mended.ok
    assert server.requests[0][2]["Authorization"] == f"Bearer {TOKEN}"
    assert TOKEN not in repr((check, mended))


def test_a_folder_is_tried_by_writing_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = FolderPeer(name="share", folder=tmp_path / "share")
    away = check_peer(peer, "NODE")
    assert away.ok is False
    assert "not mounted" in away.found
    peer.folder.mkdir()
    assert check_peer(peer, "NODE").ok
    assert not list(peer.folder.iterdir())

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(peer_checks.tempfile, "NamedTemporaryFile", full)
    assert check_peer(peer, "NODE").found.endswith("nothing can be written: No space left on device")


def test_doctor_lists_every_peer_and_a_fault_only_where_results_go(tmp_path: Path) -> None:
    text = f"""
        [node]
        data_dir = "{tmp_path}/data"
        [[peer]]
        name = "share"
        folder = "{tmp_path}/nowhere"
        [[peer]]
        name = "unused"
        folder = "{tmp_path}/nowhere"
        [[route]]
        name = "all"
        when = {{ Modality = "CT" }}
        detector = "ct-head"
        send_to = ["share"]
    """
    found = {one.check: one for one in diagnose(Blueprint(*parse_config(text)))}
    assert found["peer share"].level == "fault"
    assert found["peer unused"].level == "warning"
    assert found["peer share"].mend

"""The key of a project: no key, no start; never replaced; old generations stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.errors import ConfigError


def _file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_created_and_loaded(tmp_path: Path) -> None:
    """D14: a new key is 32 random bytes in a file of mode 0600, and is read again as it is."""
    path = tmp_path / "keys" / "project.key"
    made, other = ProjectKey.create(path), ProjectKey.create(tmp_path / "other.key")
    assert ProjectKey.load(path) == made
    assert len(made.secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert made.secret != other.secret
    assert made.id != other.id


@pytest.mark.parametrize("content", [bytes(range(32)), bytes(range(32)).hex().encode() + b"\n"])
def test_raw_or_hexadecimal(tmp_path: Path, content: bytes) -> None:
    """D14: the file holds the raw bytes or their hexadecimal digits."""
    assert ProjectKey.load(_file(tmp_path / "key", content)).secret == bytes(range(32))


def test_no_key_no_start(tmp_path: Path) -> None:
    """D14: without a key there is no default and no fallback."""
    with pytest.raises(ConfigError, match="the key of the project cannot be read"):
        ProjectKey.load(tmp_path / "missing")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606, 0o660])
def test_open_to_others(tmp_path: Path, mode: int) -> None:
    """D14: a key that others can read or write is refused."""
    with pytest.raises(ConfigError, match="open to others"):
        ProjectKey.load(_file(tmp_path / "key", bytes(range(32)), mode))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b"secret",
        bytes(16),
        bytes(range(31)),
        bytes(range(33)),
        bytes(range(16)).hex().encode(),
        b"g" * 64,
    ],
)
def test_no_key_in_the_file(tmp_path: Path, content: bytes) -> None:
    """D14: a file with something else is refused, also one with half a key in hexadecimal digits."""
    with pytest.raises(ConfigError):
        ProjectKey.load(_file(tmp_path / "key", content))


@pytest.mark.parametrize("content", [bytes(32), b"00" * 32, b"password" * 4, b"deadbeef" * 8, b"0123456789abcdef" * 2])
def test_typed_key(tmp_path: Path, content: bytes) -> None:
    """D14: a key that nobody threw dice for is refused."""
    with pytest.raises(ConfigError, match="not random"):
        ProjectKey.load(_file(tmp_path / "key", content))


def test_never_overwritten(tmp_path: Path) -> None:
    """D14: making a key where one is would cut every old pseudonym off; it is refused and the old one stays."""
    path = tmp_path / "key"
    made = ProjectKey.create(path)
    with pytest.raises(ConfigError, match="never overwritten"):
        ProjectKey.create(path)
    assert ProjectKey.load(path) == made


def test_rotation_keeps_the_old_generation(tmp_path: Path) -> None:
    """D14: a new generation gives new pseudonyms, the old ones can still be computed, and it is the same project."""
    path = tmp_path / "key"
    first = ProjectKey.create(path)
    second = ProjectKey.rotate(path)
    third = ProjectKey.rotate(path)
    loaded = ProjectKey.load(path)
    assert loaded == third
    assert [key.id for key in loaded.retired] == [second.id, first.id]
    assert Pseudonyms(loaded.retired[1]).patient_id("4711") == Pseudonyms(first).patient_id("4711")
    assert Pseudonyms(loaded).patient_id("4711") != Pseudonyms(first).patient_id("4711")
    assert {first.project, second.project, third.project} == {first.id}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_same_generation_twice(tmp_path: Path) -> None:
    """D14: a file put together by hand with one key twice is refused: which generation is it?"""
    line = bytes(range(32)).hex().encode() + b"\n"
    with pytest.raises(ConfigError, match="twice"):
        ProjectKey.load(_file(tmp_path / "key", line * 2))


def test_id_says_nothing(tmp_path: Path) -> None:
    """D14: reports and audit rows name the key by 16 digits of a keyed hash, a known answer."""
    assert ProjectKey(bytes(range(32))).id == "2121871f7b3b3513"
    key = ProjectKey.create(tmp_path / "key")
    assert key.id not in key.secret.hex()

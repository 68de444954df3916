"""Pseudonyms: known answers, the shape that each Value Representation takes, and what they must not depend on."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.pseudonyms import MAX_SHIFT_DAYS, Pseudonyms
from dicomnode.errors import ConfigError, Permanent

KEY = ProjectKey(bytes(range(32)))
OTHER_KEY = ProjectKey(bytes(range(1, 33)))
OURS = Pseudonyms(KEY)


@pytest.mark.parametrize(
    ("domain", "issuer", "value", "answer"),
    [
        ("uid", "", "1.2.3.4", "15401c31a20ca3cc7c990d607905ddfea10fa507c82434335e92386480dab82c"),
        ("patient", "HOSPITAL", "4711", "6e5a92136a424b0d36bbd53e214749d0f37dcafd76984506facb7be3ab54e5f9"),
        ("patient", "", "4711", "c4c49e078a454b509fe35471e164bf10a55328713e7bc48d776ba32cef8452d3"),
        ("accession", "", "A-1", "098c01df25e3d5d4d9b00b12c31b3fc7fe4797f6d288c5aa846b4fde796b6510"),
        ("study-id", "", "S1", "9ff3e07a20ecc833e3227d455db23f72195167a85aa2e082e062e54cf478abd8"),
        ("date", "HOSPITAL", "4711", "de903ba1adddf325d50b532d22bd7b95e1eeac0c60ec999520e1ea93a205c978"),
        ("patient", "", "Müller^山", "18f1e80c750b8ef015ca0a2a2b8d1053f76fb8a7551e89e773eff988ddb7ab2a"),
    ],
)
def test_known_answers(domain: str, issuer: str, value: str, answer: str) -> None:
    """D15: the digest is HMAC-SHA256 over domain, issuer and value; the answers were computed by OpenSSL."""
    assert OURS.digest(domain, value, issuer).hex() == answer


def test_known_pseudonyms() -> None:
    """D15, D16, D17, D18: what is made of the digests, written down once and for ever."""
    assert OURS.uid("1.2.3.4") == f"2.25.{0x15401C31A20CA3CC7C990D607905DDFE}"
    assert OURS.patient_id("4711", "HOSPITAL") == "ANON-6e5a92136a424b0d"
    assert OURS.accession("A-1") == "098c01df25e3d5d4"
    assert OURS.study_id("S1") == "9ff3e07a20ecc833"
    assert OURS.day_shift("4711", "HOSPITAL") == 1 + 0xDE903BA1ADDDF325 % 3650


def test_same_in_another_process() -> None:
    """D15: another process with the same key says the same."""
    code = (
        "from dicomnode.deid.keys import ProjectKey; from dicomnode.deid.pseudonyms import Pseudonyms;"
        "print(Pseudonyms(ProjectKey(bytes(range(32)))).uid('1.2.3.4'))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == OURS.uid("1.2.3.4")


def test_sent_to_another_process() -> None:
    """D15: pseudonyms travel to worker processes with their key and prefix."""
    there = pickle.loads(pickle.dumps(Pseudonyms(KEY, "TRIAL7-")))
    assert there.patient_id("4711") == "TRIAL7-c4c49e078a454b50"
    assert there.uid("1.2.3.4") == OURS.uid("1.2.3.4")


def test_another_key_another_pseudonym() -> None:
    """D15: nothing of one project can be linked to another by its pseudonyms."""
    theirs = Pseudonyms(OTHER_KEY)
    for make in ("uid", "patient_id", "accession", "study_id"):
        assert getattr(theirs, make)("4711") != getattr(OURS, make)("4711")


def test_domains_and_issuers_do_not_meet() -> None:
    """D15: the same text under another domain or issuer gives another pseudonym, also where they could be confused."""
    said = {OURS.digest(domain, "1", issuer) for domain in ("uid", "patient", "date") for issuer in ("", "1", "11")}
    assert len(said) == 9
    assert OURS.digest("patient", "b\0c", "a") != OURS.digest("patient", "c", "a\0b")


def test_padding_does_not_count() -> None:
    """D15: an even-length pad is no part of the value (PS3.5 6.2), a space inside is."""
    assert OURS.uid("1.2.3.4\0") == OURS.uid("1.2.3.4")
    assert OURS.patient_id(" 4711 ") == OURS.patient_id("4711")
    assert OURS.patient_id("47 11") != OURS.patient_id("4711")


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008", ""])
def test_standard_uids_stay(uid: str) -> None:
    """D16: a UID of the standard says nothing about a patient and stays, as does an empty one."""
    assert OURS.uid(uid) == uid


@pytest.mark.parametrize("uid", ["1.2.840.100081.2", "1.2.840.10008x", "not a UID", "1..2", "9" * 80, "2.25.1", "山"])
def test_other_uids_go(uid: str) -> None:
    """D16: every other UID is mapped to a valid one of 64 characters at most, even what is no UID."""
    mapped = OURS.uid(uid)
    number = mapped.removeprefix("2.25.")
    assert mapped != uid
    assert len(mapped) <= 64
    assert number == str(int(number))
    assert int(number) < 2**128


@pytest.mark.parametrize("empty", ["", " ", "\0", "  \0"])
def test_empty_patient_is_refused(empty: str) -> None:
    """D17: without a Patient ID there is no pseudonym: otherwise everybody becomes one patient."""
    with pytest.raises(Permanent, match="no Patient ID"):
        OURS.patient_id(empty)
    with pytest.raises(Permanent, match="no Patient ID"):
        OURS.day_shift(empty)


def test_length_fits() -> None:
    """D17: an accession number and a Study ID fit into SH (16 characters), a Patient ID into LO (64)."""
    assert len(OURS.accession("x" * 400)) == len(OURS.study_id("x" * 400)) == 16
    assert len(Pseudonyms(KEY, "P" * 32).patient_id("x" * 400)) == 48
    assert OURS.accession("") == OURS.study_id(" ") == ""


@pytest.mark.parametrize("prefix", ["A\\B", "A B", "P" * 33, "Ü-", "A\n"])
def test_prefix_that_cannot_stand_in_a_patient_id(prefix: str) -> None:
    """D17: a prefix that would break the Value Representation is refused at the start."""
    with pytest.raises(ConfigError, match="prefix"):
        Pseudonyms(KEY, prefix)


def test_day_shift() -> None:
    """D18: whole days from 1 to 3650, the same for a patient, spread over patients."""
    shifts = [OURS.day_shift(str(number)) for number in range(3000)]
    assert min(shifts) >= 1
    assert max(shifts) <= MAX_SHIFT_DAYS
    assert len(set(shifts)) > 1500
    assert OURS.day_shift("17") == shifts[17]
    assert OURS.day_shift("17", "OTHER") != shifts[17]


def test_no_collision_among_many() -> None:
    """D16: a hundred thousand UIDs stay different, more than the memory of what was mapped holds."""
    assert len({OURS.uid(f"1.2.{number}") for number in range(100_000)}) == 100_000


def test_key_is_not_in_the_representation(tmp_path: Path) -> None:
    """D14: a traceback or a log line that shows pseudonyms does not show the key."""
    key = ProjectKey.create(tmp_path / "key")
    assert key.secret.hex() not in f"{key!r} {Pseudonyms(key)!r} {vars(Pseudonyms(key))!r}"

"""Profiles in TOML: shipped ones, extension, and faults that name file, table and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicomnode.deid.profile import load_profile, shipped
from dicomnode.errors import ConfigError


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_profile_loads(name: str) -> None:
    """D2: what the package carries is valid, has a version and says what it is for."""
    profile = load_profile(name)
    assert profile.name == name
    assert profile.version
    assert profile.description


def test_research_is_the_basic_profile_and_more() -> None:
    """D2: the research profile keeps modified dates, patient characteristics and device, and cleans texts."""
    assert load_profile("research").options >= {
        "retain_modified_dates", "retain_patient_characteristics", "retain_device", "clean_descriptors",
        "clean_structured_content",
    }  # fmt: skip
    assert load_profile("basic").options == frozenset()


def test_a_profile_extends_another(tmp_path: Path) -> None:
    """D2: options and lists add up, rules and values of the one that extends win; files extend files beside them."""
    (tmp_path / "house.toml").write_text(
        'extends = "research"\nwords = ["Kopf nativ"]\n[rules]\nManufacturer = "X"\n[values]\nInstitutionName = "A"\n'
    )
    (tmp_path / "trial.toml").write_text(
        'name = "trial"\nversion = "7"\nextends = "house.toml"\n'
        'options = ["retain_institution", "retain_safe_private"]\n'
        '[rules]\nManufacturer = "Z"\n"(0018,1030)" = "X"\n'
        '[[safe_private]]\ngroup = "0019"\ncreator = "ACME"\nelements = ["0C", "0d"]\n'
    )
    profile = load_profile(str(tmp_path / "trial.toml"))
    assert (profile.name, profile.version) == ("trial", "7")
    assert profile.options >= {"retain_institution", "retain_modified_dates"}
    assert profile.rules[0x00080070] == "Z"
    assert profile.rules[0x00181030] == "X"
    assert profile.values == {0x00080080: "A"}
    assert {"kopf", "nativ"} <= profile.words
    assert {(0x19, "ACME", 0x0C), (0x19, "ACME", 0x0D)} <= profile.safe_private
    assert load_profile(str(tmp_path / "house.toml")).rules == {**load_profile("research").rules, 0x00080070: "X"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "not valid TOML"),
        ("colour = 1", "colour: unknown key"),
        ('options = ["retain_everything"]', "no option 'retain_everything'"),
        ('options = ["retain_full_dates", "retain_modified_dates"]', "exclude each other"),
        ("options = 3", "options: has to be a list"),
        ('[rules]\nNoSuchThing = "X"', "rules.NoSuchThing: is neither a keyword"),
        ('[rules]\nManufacturer = "Q"', "rules.Manufacturer: has to be X, Z, D, U, C or K"),
        ('[rules]\nPatientName = "K"', "only an option may do that"),
        ('[rules]\nStudyDescription = "C"', "only an option may do that"),
        ('[rules]\nSOPInstanceUID = "X"', "not for a rule to decide"),
        ('[rules]\n"(0019,100C)" = "K"', "private elements belong into safe_private"),
        ('[rules]\nManufacturer = "U"', "holds no UID"),
        ("[values]\nInstitutionName = 3", "values.InstitutionName: has to be a text"),
        ('[values]\nRows = "3"', "has to be a text, of an attribute that holds text"),
        ('[values]\nStudyDate = "yesterday"', "is no valid DA value"),
        ('[values]\nPatientIdentityRemoved = "NO"', "not for a profile to decide"),
        ('[[safe_private]]\ngroup = "0019"', "safe_private[1]: has to have group, creator and elements"),
        ('[[safe_private]]\ngroup = "0018"\ncreator = "A"\nelements = ["01"]', "odd group above 0008"),
        ('[[safe_private]]\ngroup = "0019"\ncreator = "A"\nelements = ["1"]', "2 hexadecimal digits"),
        ('extends = "nothing"', "there is no profile 'nothing'"),
        ('extends = "away.toml"', "cannot be read"),
        ('extends = "bad.toml"', "in a circle"),
    ],
)
def test_faults_name_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    """D2: a profile that cannot be meant is refused at the start, with the place of the fault."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as fault:
        load_profile(str(path))
    assert said in str(fault.value)
    assert str(tmp_path) in str(fault.value)


def test_an_unknown_name_lists_the_known_ones() -> None:
    """D2: a name that is none says which there are; so does an unknown option of the command line."""
    with pytest.raises(ConfigError, match="basic"):
        load_profile("nothing")
    with pytest.raises(ConfigError, match="retain_uids"):
        load_profile("basic").with_options(frozenset({"retain_all"}))


def test_a_rule_may_keep_what_an_option_keeps(tmp_path: Path) -> None:
    """D2: K for an attribute that the active option keeps anyway, and for one without a row, is no fault."""
    path = tmp_path / "fine.toml"
    path.write_text('options = ["retain_device"]\n[rules]\nDeviceSerialNumber = "K"\n"(0018,9994)" = "K"\n')
    assert load_profile(str(path)).rules == {0x00181000: "K", 0x00189994: "K"}

"""Results that come back about a de-identified Study: made to belong to the patient again (trust D24).

What is not known beyond doubt is held back: a result of the wrong patient is worse than none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.valuerep import VR

from dicomnode.deid.identity import MARKS, PATIENT, STUDY
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.vault import Kind, Name, Vault
from dicomnode.deid.way_back import day_in, elements, values

Found = dict[Name, dict[str, Any]]
Sources = Callable[[str], Dataset | None]
"""Study Instance UID to the header of a stored Instance of that Study, None when there is none."""

_OWN = frozenset({"SeriesInstanceUID", "SOPInstanceUID"})
_KINDS: dict[str, Kind] = {"AccessionNumber": "accession", "StudyID": "study-id", "PatientID": "patient"}
_UNICODE = "ISO_IR 192"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a result says of itself, pseudonyms all of it. ``names``: what the vault is asked for."""

    StudyInstanceUID: str
    PatientID: str
    SOPInstanceUID: str
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class Identified:
    """Whose a result is. ``found``: of the vault; ``identity``: what it gets of its patient and Study.

    ``originals``: the UIDs that those in the result stand for.
    """

    StudyInstanceUID: str
    PatientID: str
    found: Found
    identity: Dataset
    originals: frozenset[str]


class Reidentifier:
    """Knows whose results are. ``sources``: where the patient's identity is copied from, never from the vault."""

    def __init__(self, vault: Vault, sources: Sources) -> None:
        self._vault, self._sources = vault, sources

    def identify(self, asked: Asked, tell: Callable[[Sequence[int]], None]) -> Identified:
        """Whose the result is that was read. ``tell`` hears which rows of the vault will be read.

        Raises Quarantined when the Study or the patient is unknown, both do not belong together, another known patient
        is named anywhere, nothing of the Study is stored any more, or the object is one that we sent. Raises Permanent
        when the vault was tampered with.
        """
        found = self._vault.find(asked.names, tell)
        known = _known(found, asked.StudyInstanceUID, asked.PatientID)
        if any(kind == "patient" and name != asked.PatientID for kind, name in found):
            raise Quarantined(Reason.UNKNOWN_PSEUDONYM, "it names another patient too")
        if ("uid", asked.SOPInstanceUID) in found:
            raise Quarantined(Reason.OWN_INSTANCE, "it has the UID of an object that was sent")
        study, patient = str(known["StudyInstanceUID"]), str(known["PatientID"])
        originals = frozenset(str(content["value"]) for (kind, _), content in found.items() if kind == "uid")
        return Identified(study, patient, found, _identity(self._source(study, patient)), originals)

    def _source(self, study: str, patient: str) -> Dataset:
        source = self._sources(study)
        if source is None:
            raise Quarantined(Reason.NO_SOURCE, "no Instance of its Study is stored")
        stored = (str(source.get("StudyInstanceUID", "")), str(source.get("PatientID", "") or "").strip())
        if stored != (study, patient):
            raise Quarantined(Reason.NO_SOURCE, "the stored Study has another patient than when it was sent")
        return source


def asked_of(result: Dataset) -> Asked:
    """What has to be known of ``result`` to find out whose it is."""
    study, patient = str(result.get("StudyInstanceUID", "")), str(result.get("PatientID", "") or "").strip()
    names = tuple(dict.fromkeys(_names_in(result, study, patient)))
    return Asked(study, patient, str(result.get("SOPInstanceUID", "")), names)


def put_back(result: Dataset, found: Found, study: str, identity: Dataset) -> tuple[Dataset, int]:
    """``result`` under its patient's identity, as a new data set, and how many UIDs were put back.

    ``study``: its Study Instance UID as it came.
    """
    dataset = _unicode(result)
    translated = _translate(dataset, found, study)
    for keyword in (*PATIENT, *STUDY):
        if keyword in dataset:
            delattr(dataset, keyword)
        if keyword in identity:
            dataset.add(identity[keyword])
    for keyword in MARKS:
        if keyword in dataset:
            delattr(dataset, keyword)
    return dataset, translated


def _known(found: Found, study: str, patient: str) -> dict[str, Any]:
    """The row of the Study, once it agrees with the patient's pseudonym."""
    known = found.get(("study", study))
    if not study or known is None:
        raise Quarantined(Reason.UNKNOWN_PSEUDONYM, "its Study was never sent")
    if not patient or known["patient"] != patient:
        raise Quarantined(Reason.UNKNOWN_PSEUDONYM, "its patient is not the one of its Study")
    return known


def _names_in(result: Dataset, study: str, patient: str) -> Iterator[Name]:
    """What could be a pseudonym in ``result``, at any depth."""
    yield "study", study
    yield "patient", patient
    for element in elements(result):
        kind = _KINDS.get(element.keyword)
        if element.VR == VR.UI:
            yield from (("uid", value) for value in values(element) if value)
        elif element.VR in (VR.DA, VR.DT):
            yield from (("date", f"{study}/{day}") for day in map(day_in, values(element)) if day)
        elif kind is not None:
            yield from ((kind, value.strip()) for value in values(element) if value)


def _translate(dataset: Dataset, found: Found, study: str) -> int:
    """Put back every pseudonym, but not the result's own Series and SOP Instance UIDs; returns how many UIDs."""
    own = {dataset[keyword].tag for keyword in _OWN if keyword in dataset}
    count, waiting, top = 0, [dataset], True
    while waiting:
        item = waiting.pop()
        for element in item:
            if element.VR == VR.SQ:
                waiting.extend(element.value or ())
            elif not (top and element.tag in own):
                count += _put_back(element, found, study)
        top = False
    return count


def _put_back(element: DataElement, found: Found, study: str) -> int:
    kind = _KINDS.get(element.keyword)
    if element.VR == VR.UI:
        changed = [_original(found, ("uid", value), value) for value in values(element)]
    elif element.VR in (VR.DA, VR.DT):
        changed = [_dated(found, study, value) for value in values(element)]
    elif kind is not None:
        changed = [_original(found, (kind, value.strip()), value) for value in values(element)]
    else:
        return 0
    before = values(element)
    if changed == before:
        return 0
    element.value = changed if len(changed) > 1 else changed[0]
    return sum(new != old for new, old in zip(changed, before, strict=True)) if element.VR == VR.UI else 0


def _original(found: Found, name: Name, otherwise: str) -> str:
    return str(found[name]["value"]) if name in found else otherwise


def _dated(found: Found, study: str, value: str) -> str:
    day = day_in(value)
    return value.replace(day, _original(found, ("date", f"{study}/{day}"), day), 1) if day else value


def _identity(source: Dataset) -> Dataset:
    """Patient and General Study of the source, present and absent alike."""
    readable, identity = _unicode(source), Dataset()
    identity.SpecificCharacterSet = _UNICODE
    for keyword in (*PATIENT, *STUDY):
        if keyword in readable:
            identity.add(readable[keyword])
    return identity


def _unicode(dataset: Dataset) -> Dataset:
    """A copy in ISO_IR 192, in which any patient's name can stand. Bytes of the old encoding are gone."""
    copy = deepcopy(dataset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom quotes element values in its warnings
        copy.decode()
    waiting = [copy]
    while waiting:
        item = waiting.pop()
        for element in item:
            if element.VR == VR.SQ:
                waiting.extend(element.value or ())
            elif element.VR == VR.PN:
                item.add(DataElement(element.tag, VR.PN, _names(element.value), validation_mode=config.IGNORE))
        if "SpecificCharacterSet" in item:
            del item.SpecificCharacterSet
    copy.SpecificCharacterSet = _UNICODE
    return copy


def _names(value: Any) -> Any:
    return [str(one) for one in value] if isinstance(value, MultiValue | list) else str(value or "")

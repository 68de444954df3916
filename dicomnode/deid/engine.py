"""De-identification of one object: PS3.15 annex E over every element at every depth. Pure: no files, no clock.

The order of decision per element is that of ``plan``; ``walk`` applies it; here are the rules of the whole object.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO

import pydicom
from pydicom.dataset import FileDataset

from dicomnode.deid.attribute_types import attribute_types
from dicomnode.deid.burned_in import PixelGate
from dicomnode.deid.marks import marks
from dicomnode.deid.part10 import Part10, parse_part10
from dicomnode.deid.pixel_decision import PixelDecision, PixelPolicy
from dicomnode.deid.plan import Plan
from dicomnode.deid.profile import Profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.refusal import Quarantined, Reason
from dicomnode.deid.table import BASIC_CODE, PIXEL_OPTIONS, action_table
from dicomnode.deid.walk import Subject, Walk
from dicomnode.errors import Permanent

_PATIENT_ID, _ISSUER, _SOP_CLASS, _SOP_INSTANCE = 0x00100020, 0x00100021, 0x00080016, 0x00080018
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_UID = re.compile(r"[0-9.]{1,64}")
_DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done to one object. Only ``uids`` holds anything of the original.

    ``actions``: how many attributes met which code (X, Z, D, U, C, K; K: kept by an option or rule). ``codes``: CID
    7050, as they stand in (0012,0064). ``notes``: oddities by name and number. ``uids``: old to new where changed.
    """

    patient: str
    study: str
    series: str
    instance: str
    sop_class: str
    actions: Mapping[str, int]
    codes: tuple[str, ...]
    notes: Mapping[str, int]
    warnings: tuple[str, ...]
    uids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Deidentified:
    """``dataset``: new, with zero preamble and file meta of its own; ``applied``: what was done."""

    dataset: FileDataset
    applied: Applied

    @property
    def uids(self) -> Mapping[str, str]:
        """Old to new UIDs."""
        return self.applied.uids

    @property
    def codes(self) -> tuple[str, ...]:
        """The CID 7050 codes that were applied."""
        return self.applied.codes


class Deidentifier:
    """Applies ``profile``. Not to be shared by threads when ``pseudonyms`` is not."""

    def __init__(self, profile: Profile, pseudonyms: Pseudonyms, pixel_policy: PixelPolicy | None = None) -> None:
        self.profile, self.pseudonyms = profile, pseudonyms
        self.pixel_policy: PixelPolicy = PixelGate() if pixel_policy is None else pixel_policy
        self._plan = Plan(profile)

    def apply(self, dataset: FileDataset) -> Deidentified:
        """De-identify a copy of ``dataset``, which stays as it is. Raises Quarantined when it must not leave."""
        copy = deepcopy(dataset)
        decision = self.examine(copy)
        part = parse_part10(_written(copy))
        new, applied = self.transform(part, decision)
        return Deidentified(pydicom.dcmread(BytesIO(new.whole())), applied)

    def examine(self, dataset: FileDataset) -> PixelDecision:
        """What the policy says of the pixels; it may overwrite some in ``dataset``. Raises Quarantined on a risk."""
        try:
            decision = self.pixel_policy.examine(dataset)
        except Permanent as error:
            if isinstance(error, Quarantined):
                raise
            raise Quarantined(Reason.PIXELS, str(error)) from error
        if decision.hold is not None:
            raise Quarantined(Reason.BURNED_IN, decision.hold)
        return decision

    def transform(self, part: Part10, decision: PixelDecision) -> tuple[Part10, Applied]:
        """The attributes of ``part`` after the profile; its spans still point into the source of ``part``.

        Raises Quarantined without a Patient ID (trust D17) or the UIDs of an instance.
        """
        values = part.texts({_PATIENT_ID, _ISSUER, _SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES})
        sop_class = values[_SOP_CLASS]
        one_each = not part.has_several({_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES})
        if not (one_each and _UID.fullmatch(part.transfer_syntax) and _UID.fullmatch(sop_class or "0")):
            raise Quarantined(Reason.MALFORMED, "a UID of the object is none")
        if sop_class == _DIRECTORY or part.sop_class == _DIRECTORY:
            raise Quarantined(Reason.DIRECTORY)
        if not sop_class or not values[_SOP_INSTANCE]:
            raise Quarantined(Reason.NO_INSTANCE)
        if not values[_PATIENT_ID]:
            raise Quarantined(Reason.NO_PATIENT_ID)
        walk = Walk(self._plan, self.pseudonyms, part.form, attribute_types(sop_class), self._subject(part, values))
        elements = walk.root(part.elements, part.encodings)
        codes = self.codes(decision)
        unique = {element.tag: element for element in (*elements, *marks(self.profile, codes))}
        new = part.rebuilt([unique[tag] for tag in sorted(unique)])
        return new, _applied(new, walk, codes, decision)

    def codes(self, decision: PixelDecision) -> tuple[str, ...]:
        """The CID 7050 codes of the profile and of what was done to the pixels (trust D20)."""
        table = action_table()
        options = {table.code_of(option) for option in self.profile.options - set(PIXEL_OPTIONS)}
        return (BASIC_CODE, *sorted(options | set(decision.codes)))

    def _subject(self, part: Part10, values: Mapping[int, str]) -> Subject:
        patient, issuer = values[_PATIENT_ID], values[_ISSUER]
        shifts = "retain_modified_dates" in self.profile.options
        return Subject(
            pseudonym=self.pseudonyms.patient_id(patient, issuer),
            issuer=issuer,
            patient_id=patient,
            shift_days=self.pseudonyms.day_shift(patient, issuer) if shifts else 0,
            names=part.names(),
        )


def _applied(new: Part10, walk: Walk, codes: tuple[str, ...], decision: PixelDecision) -> Applied:
    values = new.texts({_PATIENT_ID, _SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES})
    return Applied(
        patient=values[_PATIENT_ID],
        study=values[_STUDY],
        series=values[_SERIES],
        instance=values[_SOP_INSTANCE],
        sop_class=values[_SOP_CLASS],
        actions=dict(walk.actions),
        codes=codes,
        notes=dict(walk.notes),
        warnings=decision.warnings,
        uids=dict(walk.uids),
    )


def _written(dataset: FileDataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
        except (ValueError, TypeError, AttributeError, NotImplementedError, OverflowError, KeyError) as error:
            raise Quarantined(Reason.MALFORMED, f"it cannot be encoded: {type(error).__name__}") from None
    return buffer.getvalue()

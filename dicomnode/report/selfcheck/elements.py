"""What every element of an object has to obey, whatever holds it: its times, its value, its UIDs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dicomnode.report.selfcheck.case import Case
from dicomnode.report.selfcheck.identity import STUDY_TIMES, time_fault
from dicomnode.report.selfcheck.level import Level
from dicomnode.report.selfcheck.uids import uid_fault
from dicomnode.report.selfcheck.values import BULK, value_fault


def element_faults(levels: Iterable[Level], case: Case) -> Iterator[str]:
    """What is wrong with the elements of ``levels``. One that lies in many places, and is sound, is looked at once.

    Those that are kept in mind are short, and their answer does not depend on the place where they lie.
    """
    sound = case.sound
    for one in levels:
        for name, element in one.elements.items():
            if id(element) in sound or name in one.items:
                continue
            texts = [
                text
                for text in (
                    time_fault(one, name, element, case),
                    value_fault(name, element, case),
                    uid_fault(element, case),
                )
                if text
            ]
            for text in texts:
                yield f"{one.path}{name}: {text}"
            if not texts and name not in STUDY_TIMES and str(element.VR) not in BULK:
                sound[id(element)] = element

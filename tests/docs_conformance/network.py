"""SOP Classes, Transfer Syntaxes, Presentation Contexts, identification: from dicom/, receive/, deliver/, assemble/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.presentation import PresentationContext, build_context

from dicomnode.assemble import finding
from dicomnode.config import Peer
from dicomnode.deliver.association import SendLimits, _Entity
from dicomnode.deliver.contexts import MAX_CONTEXTS, contexts_for
from dicomnode.dicom.sop_classes import (
    STORAGE_COMMITMENT_PUSH,
    STORAGE_SOP_CLASSES,
    VERIFICATION,
    is_image,
)
from dicomnode.dicom.transfer_syntaxes import EXPLICIT_LITTLE_ENDIAN, UNCOMPRESSED
from dicomnode.receive.contexts import PREFERENCE
from dicomnode.receive.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tests.docs_conformance.markdown import table
from tests.docs_conformance.samples import samples

_INFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, slots=True)
class _Result:
    SOPClassUID: str
    TransferSyntaxUID: str = EXPLICIT_LITTLE_ENDIAN


def sections() -> dict[str, str]:
    """The tables of this module."""
    return {
        "overview": _overview(),
        "storage-scp-sop-classes": _storage_classes(),
        "storage-scp-transfer-syntaxes": _transfer_syntaxes(),
        "verification-scp-contexts": _accepted_verification(),
        "storage-scu-contexts": _results(),
        "verification-scu-contexts": _proposed([build_context(VERIFICATION)], "SCU"),
        "query-scu-contexts": _proposed(_asker().requested_contexts, "SCU"),
        "query-scu-keys": _find_keys(),
        "implementation": _implementation(),
    }


def _overview() -> str:
    results = _result_classes()
    images = sum(is_image(uid) for uid in STORAGE_SOP_CLASSES)
    rows: list[tuple[str, str, str]] = [
        (f"Storage: {len(STORAGE_SOP_CLASSES)} SOP Classes, {images} of them images (list in 4.2.1.4)", "no", "yes"),
        *((f"Storage: {UID(uid).name}, as result", "yes", "yes") for uid in results),
        (f"Verification: {UID(VERIFICATION).name}", "yes", "yes"),
        (f"Storage Commitment: {UID(STORAGE_COMMITMENT_PUSH).name}", "yes", "no"),
        (f"Query/Retrieve: {UID(finding.STUDY_ROOT_FIND).name}", "yes", "no"),
    ]
    return table(("network service", "user of service (SCU)", "provider of service (SCP)"), rows)


def _storage_classes() -> str:
    rows = ((_name(uid), f"`{uid}`", "image" if is_image(uid) else "kept only") for uid in sorted_classes())
    return table(("SOP Class", "UID", "use"), rows)


def _name(uid: str) -> str:
    return f"{UID(uid).name} (retired)" if UID(uid).is_retired else str(UID(uid).name)


def sorted_classes() -> list[str]:
    """Storage SOP Classes in the order of their UIDs' numbers."""
    return sorted(STORAGE_SOP_CLASSES, key=lambda uid: [int(part) for part in uid.split(".")])


def _transfer_syntaxes() -> str:
    rows = (
        (place, _name(uid), f"`{uid}`", "decoded" if decodable(uid) else "kept, answered *not analysed*")
        for place, uid in enumerate(PREFERENCE, 1)
    )
    return table(("preference", "Transfer Syntax", "UID", "pixels"), rows)


def decodable(transfer_syntax_uid: str) -> bool:
    """Can an installed decoder read the pixels of this Transfer Syntax?"""
    if transfer_syntax_uid == _INFLATED:
        return True
    try:
        return bool(get_decoder(UID(transfer_syntax_uid)).is_available)
    except NotImplementedError:
        return False


def _accepted_verification() -> str:
    return _contexts([(VERIFICATION, tuple(UNCOMPRESSED))], "SCP")


def _results() -> str:
    contexts = contexts_for([_Result(uid) for uid in _result_classes()])
    limit = f"At most {MAX_CONTEXTS} Presentation Contexts per Association; files that need more go over further ones."
    return f"{_proposed(contexts, 'SCU')}\n\n{limit}"


def _result_classes() -> list[str]:
    """The SOP Classes of all results."""
    return sorted({str(one.dataset.SOPClassUID) for one in samples()})


def _proposed(contexts: Iterable[PresentationContext], role: str) -> str:
    return _contexts([(str(one.abstract_syntax), tuple(map(str, one.transfer_syntax))) for one in contexts], role)


def _contexts(pairs: Iterable[tuple[str, tuple[str, ...]]], role: str) -> str:
    rows = [(UID(sop_class).name, f"`{sop_class}`", _syntaxes(syntaxes), role, "none") for sop_class, syntaxes in pairs]
    return table(("Abstract Syntax", "UID", "Transfer Syntaxes", "role", "extended negotiation"), rows)


def _syntaxes(uids: tuple[str, ...]) -> str:
    return "<br>".join(f"{UID(uid).name} `{uid}`" for uid in uids)


class _Listener:
    """Stands in for an Association and notes the questions."""

    is_established = True

    def __init__(self) -> None:
        self.queries: list[Dataset] = []

    def send_c_find(self, query: Dataset, _model: str) -> Iterator[tuple[Dataset, None]]:
        self.queries.append(query)
        status = Dataset()
        status.Status = finding.SUCCESS
        yield status, None


def _find_keys() -> str:
    listener: Any = _Listener()
    series = finding.Counted("1.2.3", "1.2.3.4")
    finding._series_level(listener, series)
    finding._image_level(listener, series)
    rows = []
    for query in listener.queries:
        for element in query:
            if element.keyword == "QueryRetrieveLevel":
                continue
            kind = "single value" if element.value else "universal (return key)"
            rows.append((query.QueryRetrieveLevel, element.name, str(element.tag), element.VR, kind))
    return table(("level", "attribute", "tag", "VR", "matching"), rows)


def _asker() -> AE:
    """The AE with which the Query SCU would open its Association."""
    seen: list[AE] = []

    def associate(ae: AE, *_: Any, **__: Any) -> None:
        seen.append(ae)
        raise OSError

    with patch.object(finding.Requestor, "associate", associate):
        finding.count_by_find(
            "ANY", Peer(name="any", ae_title="ANY", host="::1", port=1), finding.Counted("1.2", "1.3")
        )
    return seen[0]


def _implementation() -> str:
    sender, asker = _Entity("ANY", SendLimits()), _asker()
    rows = [
        ("Storage and Verification SCP; files that it writes", IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME),
        ("Storage and Verification SCU", sender.implementation_class_uid, sender.implementation_version_name),
        ("Query SCU", asker.implementation_class_uid, asker.implementation_version_name),
    ]
    cells = ((what, f"`{uid}`", f"`{_without_version(str(name))}`") for what, uid, name in rows)
    return table(("association", "Implementation Class UID", "Implementation Version Name"), cells)


def _without_version(name: str) -> str:
    """The name with its version left open: the statement holds for every patch release."""
    head = name.rpartition("_")[0]
    return f"{head}_<version>" if head else name

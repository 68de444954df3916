"""Results for a Destination outside: de-identified at the time they are sent, or held back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dicomnode.deid.leaving import Gate, Leaving
from dicomnode.deid.refusal import Quarantined
from dicomnode.deliver.leaving import actions_of, outbound
from dicomnode.deliver.ledger import Result
from dicomnode.deliver.outbox import Parcel
from dicomnode.deliver.sending import OutboundFile
from dicomnode.dicom.status import Disposition

NO_GATE = "this process has no key to de-identify with"

Files = list[tuple[Parcel, OutboundFile]]


def disguised(
    gate: Gate | None, profile: str, files: Sequence[tuple[Parcel, OutboundFile]], folder: Path
) -> tuple[Files, list[Result], Mapping[str, Any]]:
    """The files that may be sent in place of ``files``, a result for each that is held back, and facts for the audit.

    Nothing of ``files`` is in the answer but what the gate has written anew. Raises Transient when a disk or the vault
    fails.
    """
    if gate is None:
        return [], [_held(parcel, NO_GATE) for parcel, _ in files], {}
    ready: list[tuple[Parcel, Leaving]] = []
    held: list[Result] = []
    for parcel, file in files:
        try:
            ready.append((parcel, gate.pass_through(profile, file.path, folder)))
        except Quarantined as refusal:
            held.append(_held(parcel, f"held back: {refusal}"))
    hashes = {parcel.SOPInstanceUID: leaving.after for parcel, leaving in ready}
    facts = {"actions": actions_of(leaving for _, leaving in ready), "sha256_after": hashes, **gate.facts(profile)}
    return [(parcel, outbound(leaving)) for parcel, leaving in ready], held, facts


def _held(parcel: Parcel, reason: str) -> Result:
    return Result(parcel, Disposition.PERMANENT, None, reason, tried=False, held=True)

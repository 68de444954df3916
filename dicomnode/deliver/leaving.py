"""Images of a Series on their way outside: de-identified just before they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicomnode.config import Destination
from dicomnode.deid.leaving import Gate, Leaving
from dicomnode.deid.refusal import Quarantined
from dicomnode.deliver.association import SendLimits
from dicomnode.deliver.channels import send_to
from dicomnode.deliver.sending import OutboundFile, SentStatus
from dicomnode.dicom.status import Disposition
from dicomnode.errors import Transient
from dicomnode.store.spool import Spool
from dicomnode.store.tables import InstanceRow, SeriesRow, StudyRow

FOLDER = "outgoing"
_SAME_FOR_ALL = 3


@dataclass(frozen=True, slots=True)
class Image:
    """A received Instance that is to go outside."""

    id: int
    SOPInstanceUID: str
    path: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """Images of which de-identified files lie ready, and those that are held back, each with the reason."""

    ready: tuple[tuple[Image, Leaving], ...]
    held: tuple[tuple[Image, str], ...]

    @property
    def held_lines(self) -> list[dict[str, str]]:
        """For an audit body."""
        return [{"SOPInstanceUID": image.SOPInstanceUID, "reason": reason} for image, reason in self.held]


@dataclass(frozen=True, slots=True)
class Sent:
    """One image, what left, and what the peer said."""

    image: Image
    leaving: Leaving
    answer: SentStatus

    @property
    def refused(self) -> bool:
        """No sending helps."""
        return self.answer.disposition is Disposition.PERMANENT

    @property
    def line(self) -> dict[str, Any]:
        """For an audit body. The pseudonym is not in it: the log is no vault."""
        hashes = {"sha256_before": self.leaving.before, "sha256_after": self.leaving.after}
        said = {"Status": self.answer.status, "text": self.answer.reason}
        return {"SOPInstanceUID": self.image.SOPInstanceUID, **hashes, **said}


def images_of(session: Session, spool: Spool, series_id: int) -> list[Image]:
    """The images of a Series, conflicting copies left out."""
    query = select(InstanceRow.id, InstanceRow.SOPInstanceUID, InstanceRow.path)
    query = query.where(InstanceRow.series_id == series_id, InstanceRow.conflict.is_(False)).order_by(InstanceRow.id)
    return [Image(row.id, row.SOPInstanceUID, spool.absolute(row.path)) for row in session.execute(query)]


def subject_of_series(session: Session, series_id: int) -> dict[str, Any]:
    """Whose images these are: identifiers for an audit body."""
    series = session.get(SeriesRow, series_id)
    if series is None:
        return {}
    study = session.get_one(StudyRow, series.study_id)
    facts = {"StudyInstanceUID": study.StudyInstanceUID, "SeriesInstanceUID": series.SeriesInstanceUID}
    return {**facts, "PatientID": study.PatientID, "AccessionNumber": study.AccessionNumber}


@contextmanager
def outgoing(spool: Spool) -> Iterator[Path]:
    """A folder for files that are about to be sent; it goes with them."""
    root = spool.root / FOLDER
    root.mkdir(mode=0o700, exist_ok=True)
    with TemporaryDirectory(dir=root) as folder:
        yield Path(folder)


def prepare(gate: Gate, profile: str, images: Iterable[Image], folder: Path) -> Prepared:
    """De-identify ``images`` into ``folder``. Raises Transient when a disk or the vault fails."""

    def one(image: Image) -> Leaving | str:
        try:
            return gate.pass_through(profile, image.path, folder)
        except Quarantined as refusal:
            return str(refusal)

    images = tuple(images)
    with ThreadPoolExecutor(gate.at_once, "deid") as pool:
        answers = list(zip(images, pool.map(one, images), strict=True))
    ready = tuple((image, answer) for image, answer in answers if isinstance(answer, Leaving))
    return Prepared(ready, tuple((image, answer) for image, answer in answers if isinstance(answer, str)))


def send(
    peer: Destination, calling_ae: str, ready: Sequence[tuple[Image, Leaving]], limits: SendLimits
) -> Iterator[Sent]:
    """Send what lies ready, and nothing else: the files of the spool are not within reach here."""
    if not ready:
        return
    by_path = {leaving.path: (image, leaving) for image, leaving in ready}
    with closing(send_to(peer, calling_ae, [outbound(leaving) for _, leaving in ready], limits)) as answers:
        for answer in answers:
            yield Sent(*by_path[answer.file.path], answer)


def require_all(prepared: Prepared, sent: Sequence[Sent]) -> None:
    """Raise Transient when the peer has not judged each of these images: the rest would fare no better."""
    unjudged = [one.answer.reason for one in sent if not one.answer.accepted and not one.refused]
    if unjudged or len(sent) < len(prepared.ready):
        raise Transient(unjudged[0] if unjudged else "not all images were sent")


def outbound(leaving: Leaving) -> OutboundFile:
    """The file under its new names."""
    applied = leaving.applied
    return OutboundFile(leaving.path, applied.sop_class, applied.instance, leaving.TransferSyntaxUID)


def actions_of(leavings: Iterable[Leaving]) -> dict[str, int]:
    """How many attributes met which action, of all of them together."""
    found: dict[str, int] = {}
    for leaving in leavings:
        for action, count in leaving.applied.actions.items():
            found[str(action)] = found.get(str(action), 0) + count
    return found


def held_in_words(held: Sequence[str], of: int) -> str:
    """How many images stay, and why."""
    return f"{len(held)} of {of} images held back: {'; '.join(sorted(set(held))[:_SAME_FOR_ALL])}"

"""Where the identity of a Study is copied from: an Instance of it in the spool, read by a child."""

from __future__ import annotations

from pydicom import Dataset
from sqlalchemy import select

from dicomnode.detect.reader import Reader
from dicomnode.detect.volume_terms import SourceFile
from dicomnode.dicom.references import InstanceReference
from dicomnode.errors import Permanent
from dicomnode.store.engine import Store
from dicomnode.store.spool import Spool
from dicomnode.store.tables import InstanceRow, SeriesRow, StudyRow


class SpoolOriginals:
    """``deid.reidentify.Sources`` over what the node has received."""

    def __init__(self, store: Store, spool: Spool, reader: Reader) -> None:
        self._store, self._spool, self._reader = store, spool, reader

    def __call__(self, study: str) -> Dataset | None:
        """The header of the first Instance of the Study, None when none is stored or it cannot be read."""
        with self._store.read() as session:
            query = (
                select(SeriesRow.SeriesInstanceUID, InstanceRow.SOPClassUID, InstanceRow.SOPInstanceUID)
                .add_columns(InstanceRow.path)
                .join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
                .join(StudyRow, StudyRow.id == SeriesRow.study_id)
                .where(StudyRow.StudyInstanceUID == study, InstanceRow.conflict.is_(False))
            )
            row = session.execute(query.order_by(InstanceRow.id).limit(1)).first()
        if row is None:
            return None
        reference = InstanceReference(study, row.SeriesInstanceUID, row.SOPClassUID, row.SOPInstanceUID)
        try:
            return self._reader.first_header([SourceFile(reference, self._spool.absolute(row.path))])[1]
        except Permanent:  # NotAnalysable, or a limit of the child
            return None

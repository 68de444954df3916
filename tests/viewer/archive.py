"""Orthanc as the viewer's archive: with DICOMweb, nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.orthanc import Orthanc

PLUGINS = Path("/usr/share/orthanc/plugins")
DICOM_WEB_PLUGIN = PLUGINS / "libOrthancDicomWeb.so"


def viewer_archive(folder: Path) -> Orthanc:
    """An Orthanc that the viewer can ask; its storage lies in ``folder``."""
    web = {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"}
    return Orthanc(folder, settings={"Plugins": [str(DICOM_WEB_PLUGIN)], "DicomWeb": web})

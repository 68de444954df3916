"""What pydicom raises on broken data beside the exceptions of Python itself."""

from __future__ import annotations

from pydicom.errors import BytesLengthException, InvalidDicomError

PYDICOM_FAULTS = (InvalidDicomError, BytesLengthException)
"""No DICOM at all; and an element whose length is no multiple of its VR's, which shows only when its value is asked
for. Neither is a ValueError."""

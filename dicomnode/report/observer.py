"""Who observed: the device; no person is claimed to have looked (PS3.16 TID 1002, TID 1004)."""

from __future__ import annotations

from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.sr.codedict import codes as standard

from dicomnode.report.context import MANUFACTURER, ReportContext, device_uid


def device_observer(context: ReportContext) -> ObserverContext:
    """The Device Observer items: UID, name, manufacturer, model, and the weights' SHA-256 as serial number."""
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(context),
        name=context.ae_title,
        manufacturer_name=MANUFACTURER,
        model_name=context.detector,
        serial_number=context.model.sha256,
    )
    return ObserverContext(standard.DCM.Device, device)

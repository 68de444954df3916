"""Everything a scanner may send is known, and images are told from other objects."""

from __future__ import annotations

import pytest
from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AllStoragePresentationContexts

from dicomnode.dicom import sop_classes
from dicomnode.dicom.references import require_uid
from dicomnode.dicom.transfer_syntaxes import ALL_TRANSFER_SYNTAXES, is_native


def test_all_storage_classes_and_transfer_syntaxes_of_the_libraries_are_known() -> None:
    assert {context.abstract_syntax for context in AllStoragePresentationContexts} <= set(
        sop_classes.STORAGE_SOP_CLASSES
    )
    assert set(AllTransferSyntaxes) <= set(ALL_TRANSFER_SYNTAXES)
    for uid in (*sop_classes.STORAGE_SOP_CLASSES, *ALL_TRANSFER_SYNTAXES):
        require_uid(uid)


def test_no_uid_is_listed_twice() -> None:
    assert len(set(sop_classes.STORAGE_SOP_CLASSES)) == len(sop_classes.STORAGE_SOP_CLASSES)
    assert len(set(ALL_TRANSFER_SYNTAXES)) == len(ALL_TRANSFER_SYNTAXES)


@pytest.mark.parametrize(
    "uid",
    [
        sop_classes.CT_IMAGE,
        sop_classes.ENHANCED_CT_IMAGE,
        sop_classes.MR_IMAGE,
        sop_classes.ENHANCED_MR_IMAGE,
        sop_classes.COMPUTED_RADIOGRAPHY,
        sop_classes.DIGITAL_X_RAY_FOR_PRESENTATION,
        sop_classes.SECONDARY_CAPTURE,
        "1.2.840.10008.5.1.4.1.1.6.2",
        "1.2.840.10008.5.1.4.1.1.5",
    ],
)
def test_images_are_images(uid: str) -> None:
    assert sop_classes.is_image(uid)


@pytest.mark.parametrize(
    "uid",
    [
        sop_classes.COMPREHENSIVE_3D_SR,
        sop_classes.SEGMENTATION,
        sop_classes.PARAMETRIC_MAP,
        sop_classes.KEY_OBJECT_SELECTION,
        sop_classes.GRAYSCALE_SOFTCOPY_PRESENTATION_STATE,
        sop_classes.VERIFICATION,
        "1.2.840.10008.5.1.4.1.1.481.2",
        "1.2.3",
    ],
)
def test_reports_segmentations_states_and_doses_are_not_images(uid: str) -> None:
    assert not sop_classes.is_image(uid)


def test_native_pixel_data_are_told_from_encapsulated_ones() -> None:
    assert is_native("1.2.840.10008.1.2")
    assert is_native("1.2.840.10008.1.2.1.99")
    assert not is_native("1.2.840.10008.1.2.4.90")


def test_a_sop_class_has_a_name() -> None:
    assert sop_classes.sop_class_name(sop_classes.CT_IMAGE) == "CT Image Storage"
    assert sop_classes.sop_class_name("1.2.3") == "1.2.3"

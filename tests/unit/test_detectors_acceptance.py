"""Which series the built-in detectors take, and what they say when they do not."""

from __future__ import annotations

import re

import pytest

from dicomnode.detectors.discovery import discover
from dicomnode.dicom.references import SeriesReference
from dicomnode.dicom.summary import SeriesSummary

DETECTORS = discover().detectors
CT_HEAD = {"Modality": "CT", "BodyPartExamined": "HEAD"}
MR_BRAIN = {"Modality": "MR", "BodyPartExamined": "BRAIN"}


def answer(name, **attributes):
    values = {key: value if isinstance(value, tuple) else (value,) for key, value in attributes.items()}
    return DETECTORS[name].accepts(SeriesSummary(SeriesReference("2.25.1", "2.25.2"), 1, values))


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("cxr", {"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "AP"}),
        ("cxr", {"Modality": "DX", "StudyDescription": "XR Thorax PA"}),
        ("ct-head", {"Modality": "CT", "BodyPartExamined": "SKULL"}),
        ("ct-head", {"Modality": "CT", "StudyDescription": "CT Brain without contrast"}),
        ("mr-brain-flair", {"Modality": "MR", "BodyPartExamined": "HEAD", "ProtocolName": "t2_tirm_tra_dark-fluid"}),
        ("mr-brain-flair", {"Modality": "MR", "BodyPartExamined": "BRAIN", "SeriesDescription": "Ax T2FLAIR"}),
        ("mr-brain-flair", {"Modality": "MR", "BodyPartExamined": "BRAIN", "InversionTime": 2500, "EchoTime": "120"}),
    ],
)
def test_series_of_the_trained_kind_are_taken(name, attributes):
    """Body part by Body Part Examined or description; FLAIR by name or timing."""
    assert answer(name, **attributes).accepted


@pytest.mark.parametrize(
    ("name", "attributes", "reason"),
    [
        ("cxr", {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "LL"}, "lateral"),
        ("cxr", {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": ("PA", "LL")}, "lateral"),
        ("cxr", {"Modality": "DX", "BodyPartExamined": "CHEST", "SeriesDescription": "Chest lat"}, "lateral"),
        ("cxr", {"Modality": "CT", "BodyPartExamined": "CHEST"}, "modality CT"),
        ("cxr", {"Modality": "DX", "BodyPartExamined": "HAND"}, "HAND"),
        ("cxr", {"Modality": "DX"}, "no body part"),
        ("ct-head", CT_HEAD | {"ImageType": ("ORIGINAL", "LOCALIZER")}, "localizer"),
        ("ct-head", CT_HEAD | {"ContrastBolusAgent": "X"}, "contrast"),
        ("ct-head", CT_HEAD | {"SeriesDescription": "CTA circle"}, "angiography"),
        ("ct-head", {"Modality": "CT", "BodyPartExamined": "ABDOMEN", "StudyDescription": "Head"}, "ABDOMEN"),
        ("mr-brain-flair", {"Modality": "MR", "BodyPartExamined": "KNEE"}, "body part KNEE; .* trained on brain FLAIR"),
        ("mr-brain-flair", MR_BRAIN | {"SeriesDescription": "T1 MPRAGE"}, "FLAIR"),
        ("mr-brain-flair", MR_BRAIN | {"InversionTime": 900, "EchoTime": 3}, "FLAIR"),
        ("mr-brain-flair", MR_BRAIN | {"InversionTime": "x"}, "FLAIR"),
    ],
)  # fmt: skip
def test_series_of_another_kind_are_refused_with_a_reason(name, attributes, reason):
    """The refusal names what does not fit."""
    given = answer(name, **attributes)
    assert not given.accepted
    assert re.search(reason, given.reason), given.reason

"""The recipes of the shipped models: data layout, networks, score, and what their cards say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicomnode.errors import ConfigError
from dicomnode.train.calibrate import ScoreRule


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """One method of every fold. ``architecture``: the card's entry. ``steps``: optimiser steps, None as it says."""

    architecture: Mapping[str, Any]
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a model but the pictures.

    ``unit``: modality units per grey value of the training pictures. ``min_organ_share``: planes
    below are trained on but neither scored nor calibrated on. ``mixed``: split of unlabelled pictures that methods
    which can may use. ``about``: the card's fields for people.
    """

    detector: str
    model: str
    version: str
    preparation: str
    size: int
    axial: bool
    unit: float
    networks: tuple[NetworkRecipe, ...]
    rule: ScoreRule
    mirror: bool
    rotate: float
    folds: int = 3
    min_organ_share: float = 0.0
    mixed: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


_AE_U = {"kind": "ae-u", "size": 64, "width": 16, "latent": 16}
_DAE_CT = {"kind": "dae", "size": 128, "width": 16, "bright_only": True, "smooth": 13}
_DAE_MR = {"kind": "dae", "size": 128, "width": 16, "bright_only": True, "smooth": 9}

_CXR = Recipe(
    detector="cxr",
    model="cxr-healthy",
    version="1.0.0",
    preparation="radiograph",
    size=128,
    axial=False,
    unit=1.0,
    networks=(NetworkRecipe(_AE_U, 1250),),
    rule=ScoreRule(
        plane=(("ae-u", 0.02, 1.0),),
        map=(("ae-u", 1.0),),
        top_planes=1,
        raw_unit="mean of the greatest 2 % of exp(-s)(x - x̂)² in the chest window, healthy median = 1",
        region_share=0.01,
    ),
    mirror=False,
    rotate=5.0,
    about={
        "description": "AE-U (auto-encoder with learned uncertainty), trained on healthy frontal chest radiographs.",
        "licence": "NIH ChestX-ray14: no restrictions on use, with citation; RSNA 2018 labels: attribution to RSNA",
        "non_commercial": False,
        "attribution": [
            "Wang et al., ChestX-ray8, CVPR 2017",
            "Images provided by the NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC",
            "RSNA Pneumonia Detection Challenge 2018 (labels, boxes)",
        ],
        "intended_use": "Research on anomaly detection in frontal chest radiographs of adults.",
        "limits": [
            "One hospital; 8-bit pictures of 256 x 256 pixels whose pixel aspect is not recorded.",
            "Healthy pictures were chosen by text mining and are noisy; 68 % are AP.",
            "It cannot tell lung opacity from normal on the validation pictures (AUROC near 0.5): see metrics.",
            "Not for children, lateral views, or any clinical decision.",
        ],
        "data": {
            "source": "NIH ChestX-ray14, RSNA 2018 labels",
            "train": "split train_normal: 305 pictures of 203 patients without findings",
            "choice": "splits val (PA: 20 opacity, 25 normal) and val_ap (AP: 79 opacity, 41 other)",
        },
    },
)

_CT = Recipe(
    detector="ct-head",
    model="ct-head-healthy",
    version="1.0.0",
    preparation="head-ct",
    size=128,
    axial=True,
    unit=80.0 / 255.0,
    networks=(NetworkRecipe(_AE_U, 1250), NetworkRecipe(_DAE_CT, 782)),
    rule=ScoreRule(
        plane=(("dae", 0.05, 1.0), ("ae-u", 1.0, 0.3)),
        map=(("dae", 1.0),),
        top_planes=3,
        raw_unit="mean over the 3 highest planes of DAE + 0.3 AE-U residual inside the skull, each healthy median = 1",
    ),
    mirror=True,
    rotate=12.0,
    min_organ_share=0.4,
    about={
        "description": "AE-U and DAE trained on head CT without intracranial haemorrhage only, inside the skull.",
        "licence": "CC BY 4.0 (attribution), as the data descriptor states for versions 1.2.0 and 1.3.0 of the data",
        "non_commercial": False,
        "attribution": ["Hssayeni et al., Intracranial Hemorrhage Segmentation (CT-ICH), Data 2020, 5(1):14"],
        "intended_use": "Research on anomaly detection in unenhanced axial head CT.",
        "limits": [
            "One hospital, trauma patients; pictures that were windowed (window not recorded), not HU of a scanner.",
            "32 healthy patients calibrate the score; sex and brightness are confounded with haemorrhage in this data.",
            "Vertex and skull base are left out: a plane is analysed only where the brain fills 40 % of the head.",
            "Localisation could not be measured (no outlines). Not for contrast CT or any clinical decision.",
        ],
        "data": {
            "source": "CT-ICH (Al Hilla Teaching Hospital, 2018), brain-window pictures",
            "train": "split train_normal: 967 slices of 32 patients without haemorrhage",
            "choice": "split val: 746 slices of 25 patients (18 with haemorrhage)",
        },
    },
)

_MR = Recipe(
    detector="mr-brain-flair",
    model="mr-brain-flair-healthy",
    version="1.0.0",
    preparation="brain-flair",
    size=128,
    axial=True,
    unit=1.0,
    networks=(NetworkRecipe(_AE_U, 1563), NetworkRecipe(_DAE_MR, 782)),
    rule=ScoreRule(
        plane=(("dae", 0.02, 1.0), ("ae-u", 1.0, 0.3)),
        map=(("dae", 1.0),),
        top_planes=3,
        raw_unit="mean over the 3 highest planes of DAE + 0.3 AE-U residual inside the head, each healthy median = 1",
    ),
    mirror=True,
    rotate=12.0,
    about={
        "description": "AE-U and DAE trained on tumour-free FLAIR slices only.",
        "licence": "CC BY-NC-SA 4.0 (non-commercial)",
        "non_commercial": True,
        "attribution": [
            "Buda, Saha, Mazurowski, Computers in Biology and Medicine 2019 (LGG segmentation set)",
            "TCGA-LGG, The Cancer Imaging Archive",
        ],
        "intended_use": "Research on anomaly detection in axial brain FLAIR; non-commercial.",
        "limits": [
            "No healthy people: normal means a tumour-free slice of a glioma patient.",
            "Trained on 8-bit pictures of five sites; other sequences, knees, spines and children were never seen.",
            "Bright artefacts, white-matter disease and the skull base raise the score too.",
            "Patient-level detection could not be measured (every patient has a tumour). Not for clinical decisions.",
        ],
        "data": {
            "source": "TCGA-LGG, FLAIR",
            "train": "split train_normal: 1265 slices of 76 patients without tumour on the slice",
            "choice": "split val: 487 slices of 17 patients (206 with tumour)",
        },
    },
)

RECIPES: Mapping[str, Recipe] = {recipe.detector: recipe for recipe in (_CXR, _CT, _MR)}


def recipe_for(detector: str) -> Recipe:
    """The recipe of a detector. Raises ConfigError with the names there are."""
    try:
        return RECIPES[detector]
    except KeyError:
        raise ConfigError(f"no recipe for {detector}; there are {', '.join(RECIPES)}") from None

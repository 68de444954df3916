"""The recipes of the shipped models: data layout, networks, score, and what their cards say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dicomnode.detectors.ensemble import method_of
from dicomnode.detectors.methods.catalogue import method_entry
from dicomnode.detectors.methods.contract import Regime
from dicomnode.errors import ConfigError
from dicomnode.models.card import read_card
from dicomnode.models.registry import SHIPPED, WEIGHTS_FILE
from dicomnode.train.calibrate import ScoreRule


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """One method of every fold. ``architecture``: the card's entry. ``steps``: optimiser steps, None as it says."""

    architecture: Mapping[str, Any]
    steps: int | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a model but the pictures.

    ``backbone``: shipped model whose frozen backbone the fits start from. ``unit``: modality units per grey value of
    the training pictures. ``min_organ_share``: planes below are trained on but neither scored nor calibrated on.
    ``mixed``: split of unlabelled pictures that methods which can may use. ``registration``: "rigid", "similarity" or
    "affine" onto the mean healthy plane, None as they lie. ``clahe``: equalise radiographs (``preprocess.with_clahe``).
    ``about``: the card's fields for people.
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
    backbone: str | None = None
    registration: str | None = None
    clahe: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)


_AE_U = {"kind": "ae-u", "size": 64, "width": 16, "latent": 16}
_DAE_CT = {"kind": "dae", "size": 128, "width": 16, "bright_only": True, "smooth": 13}
_UNET_MR = {"kind": "lesion-unet", "size": 128, "lesions": "flair", "batch": 16, "learning_rate": 3e-3}
_DAE_MR = {"kind": "dae", "size": 128, "width": 16, "bright_only": True, "smooth": 9}

_CXR = Recipe(
    detector="cxr",
    model="cxr-lungs",
    version="2.0.0",
    preparation="chest-lungs",
    size=256,
    axial=False,
    unit=1.0,
    networks=(NetworkRecipe({"kind": "lung-features"}),),
    rule=ScoreRule(
        plane=(("lung-features", None, 1.0),),
        map=(("lung-features", 1.0),),
        top_planes=1,
        raw_unit="opacity + healthy against mixed + distance from normal, healthy spread (IQR / 1.349) = 1",
        region_share=0.01,
    ),
    mirror=False,
    rotate=0.0,
    mixed="mixed_unlabelled",
    backbone="cxr-lungs",
    about={
        "description": "Three linear readings of frozen MobileNetV2 features of the lungs: an opacity map learned from "
        "made-up opacities, healthy against an unlabelled mixed set, and the distance from normal PA pictures.",
        "licence": "NIH ChestX-ray14: no restrictions on use, with citation; RSNA 2018 labels: attribution to RSNA; "
        "MobileNetV2 weights: Apache-2.0",
        "non_commercial": False,
        "attribution": [
            "Wang et al., ChestX-ray8, CVPR 2017",
            "Images provided by the NIH Clinical Center, https://nihcc.app.box.com/v/ChestXray-NIHCC",
            "RSNA Pneumonia Detection Challenge 2018 (labels, boxes)",
            "MobileNetV2 1.0 224 (ImageNet), google-coral/test_data at 104342d2, Apache-2.0; dequantised, float16",
        ],
        "intended_use": "Research on anomaly detection in frontal chest radiographs of adults.",
        "limits": [
            (
                "One hospital; 8-bit pictures of 256 x 256 pixels whose pixel aspect is not recorded. Not for children,"
                " lateral views, or any clinical decision."
            ),
            "About 150 configurations were tried on the same validation pictures: the figures are optimistic.",
            (
                "Weaker on AP: val_ap, opacity (79) against all others (41), AUROC 0.73 (0.63 to 0.81). The figure"
                " against its 5 normals allows no conclusion."
            ),
            (
                "At the threshold it flags in val 30 % of opacities and none of 25 normals; in val_ap 44 % of opacities"
                " and 11 % of pictures that are neither; elsewhere on PA 18 % of 55 that are neither."
            ),
            "Its map does not localise: position alone explains most of it (pixel AP of cells 0.39 against 0.32).",
            (
                "Healthy pictures were chosen by text mining and by file size, the mixed ones were not; averaging to 64"
                " pixels is meant to take that away. The projection is guessed from the picture."
            ),
        ],
        "data": {
            "source": "NIH ChestX-ray14, RSNA 2018 labels; the backbone has seen ImageNet",
            "train": "split train_normal: 305 pictures of 203 patients without findings; split mixed_unlabelled: 155 "
            "pictures of 143 patients whose reports name pneumonia, unread",
            "choice": "splits val (PA: 20 opacity, 25 normal) and val_ap (AP: 79 opacity, 41 other)",
        },
    },
)

_CT = Recipe(
    detector="ct-head",
    model="ct-head-healthy",
    version="2.0.0",
    preparation="head-ct-2",
    size=128,
    axial=True,
    unit=80.0 / 255.0,
    networks=(NetworkRecipe(_AE_U, 1250), NetworkRecipe(_DAE_CT, 782)),
    rule=ScoreRule(
        plane=(("dae", 0.05, 1.0), ("ae-u", 1.0, 0.3)),
        map=(("dae", 1.0),),
        top_planes=3,
        raw_unit="mean over the 3 highest planes of DAE + 0.3 AE-U residual inside the skull, in spreads above the "
        "median of healthy planes with as much brain",
        by_share=True,
        series_share=0.4,
    ),
    mirror=True,
    rotate=12.0,
    about={
        "description": "AE-U and DAE trained on head CT without intracranial haemorrhage only, inside the skull.",
        "licence": "CC BY 4.0 (attribution), as the data descriptor states for versions 1.2.0 and 1.3.0 of the data",
        "non_commercial": False,
        "attribution": ["Hssayeni et al., Intracranial Hemorrhage Segmentation (CT-ICH), Data 2020, 5(1):14"],
        "intended_use": "Research on anomaly detection in unenhanced axial head CT.",
        "limits": [
            "One hospital, trauma patients; pictures that were windowed (window not recorded), not HU of a scanner.",
            "32 healthy patients calibrate the score; sex and brightness are confounded with haemorrhage in this data.",
            "The 7 healthy patients of the validation split are too few to tell the model from a trivial feature.",
            "At skull base and vertex healthy planes differ most, so a deviation has to be stronger there.",
            "The score of a series is that of its planes where the brain fills 40 % of the head.",
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
    version="2.0.0",
    preparation="brain-flair",
    size=128,
    axial=True,
    unit=1.0,
    networks=(NetworkRecipe(_AE_U, 1563), NetworkRecipe(_DAE_MR, 782), NetworkRecipe(_UNET_MR, 480)),
    rule=ScoreRule(
        plane=(("dae", 0.02, 1.0), ("ae-u", 1.0, 0.3)),
        map=(("lesion-unet", 1.0), ("dae", 1.0)),
        top_planes=3,
        raw_unit="mean over the 3 highest planes of DAE + 0.3 AE-U residual inside the head, each healthy median = 1",
        thresholds_on="val",
    ),
    mirror=True,
    rotate=12.0,
    about={
        "description": "AE-U and DAE trained on tumour-free FLAIR slices only; its map also by a U-Net that learned to "
        "find synthetic lesions painted on such slices.",
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
            "The threshold of the marked regions was chosen by the outlines of the validation split.",
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
    """The recipe of a detector. Raises ConfigError with the names there are, or without its shipped backbone."""
    try:
        recipe = RECIPES[detector]
    except KeyError:
        raise ConfigError(f"no recipe for {detector}; there are {', '.join(RECIPES)}") from None
    if recipe.backbone is None:
        return recipe
    folder = SHIPPED / recipe.backbone
    file = {"backbone_weights": str(folder / WEIGHTS_FILE), "backbone_sha256": read_card(folder).sha256}
    started = [replace(entry, architecture={**entry.architecture, **file}) for entry in recipe.networks]
    return replace(recipe, networks=tuple(started))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a user asks for: one method with its settings, in the place of a shipped recipe's networks.

    ``licence``: of the data, for the card.
    """

    method: str
    settings: Mapping[str, object] = field(default_factory=dict)
    steps: int | None = None
    folds: int = 3
    mixed: str | None = None
    name: str | None = None
    licence: str = "not stated: that of the training data"


def recipe_of(detector: str, wish: Wish) -> Recipe:
    """The recipe of ``detector`` with one method of the user's choice, which scores by its own rule.

    Raises ConfigError for an unknown detector or method, settings that the method does not take, or a method that
    needs what is not there (a mixed split, neighbouring planes).
    """
    base, entry = recipe_for(detector), method_entry(wish.method)
    if entry.regime is Regime.HEALTHY_AND_MIXED and wish.mixed is None:
        raise ConfigError(f"{wish.method} learns from a mixed set too: name its split with --mixed")
    if entry.stacked and not base.axial:
        raise ConfigError(f"{wish.method} needs neighbouring planes; {detector} looks at projections")
    architecture = {"kind": wish.method, **wish.settings}
    method_of(architecture)
    return replace(
        base,
        model=wish.name or f"{detector}-{wish.method}",
        networks=(NetworkRecipe(architecture, wish.steps),),
        rule=ScoreRule(
            plane=((wish.method, None, 1.0),),
            map=((wish.method, 1.0),),
            top_planes=base.rule.top_planes,
            raw_unit=f"{entry.score}; healthy spread (IQR / 1.349) = 1",
            region_share=base.rule.region_share,
        ),
        folds=wish.folds,
        mixed=wish.mixed if entry.regime is Regime.HEALTHY_AND_MIXED else None,
        about=_about(entry.source, wish),
    )


def _about(source: str, wish: Wish) -> dict[str, Any]:
    return {
        "description": f"{wish.method} ({source}), trained by dicomnode train.",
        "licence": wish.licence,
        "non_commercial": False,
        "attribution": [],
        "intended_use": "Research on anomaly detection in images like those it was trained on.",
        "limits": [
            "Trained on data that only its maker knows; nothing is known of other scanners or hospitals.",
            "Not for any clinical decision.",
        ],
        "data": {"source": "the maker's own data", "train": "taken as healthy"},
    }

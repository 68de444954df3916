"""Healthy Series (Volumes, as the node loads them) as training planes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from dicomnode.detectors.acquisition_features import geometry
from dicomnode.detectors.contract import Volume
from dicomnode.detectors.ensemble import shares_of
from dicomnode.detectors.methods.contract import Planes
from dicomnode.detectors.preprocess import Prepared, preparation_of
from dicomnode.detectors.registration import aligned
from dicomnode.errors import ConfigError
from dicomnode.train.build import Healthy
from dicomnode.train.datasets import eight_bit, patient_folds
from dicomnode.train.recipes import Recipe


def healthy_series(recipe: Recipe, volumes: Iterable[tuple[str, Volume]]) -> Healthy:
    """The planes of ``volumes``, each with a name that tells its patient; all are taken as healthy.

    Planes that cannot be prepared are left out. A Volume whose planes form a stack stays one. Raises ConfigError when
    there is no usable plane, or there are too few patients for the folds.
    """
    prepare = preparation_of(recipe.preparation, clahe=recipe.clahe)
    planes: list[Prepared] = []
    patients: list[str] = []
    known: list[dict[str, float]] = []
    stacks: list[tuple[int, ...]] = []
    for patient, volume in volumes:
        start = len(planes)
        for plane in volume.planes:
            item = prepare(plane.pixels, recipe.size)
            if isinstance(item, Prepared):
                planes.append(item)
                patients.append(patient)
                pixel = None if plane.spacing is None else float(np.mean(plane.spacing))
                known.append(geometry(pixel, volume.slice_spacing))
        own = range(start, len(planes))
        stacks += [tuple(own)] if volume.slice_spacing is not None and own else [(i,) for i in own]
    if not planes:
        raise ConfigError("no image of the folder could be prepared")
    fold_of = patient_folds(patients, recipe.folds)
    planes, template = aligned(planes, recipe.registration)
    masks = np.stack([plane.mask for plane in planes])
    batch = Planes(eight_bit(planes), masks, tuple(stacks), shares=shares_of(planes))
    countable = [plane.organ_share >= recipe.min_organ_share for plane in planes]
    return Healthy(batch, patients, [fold_of[name] for name in patients], countable, known, template)

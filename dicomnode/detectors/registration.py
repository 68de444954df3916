"""Registration: a prepared plane is moved to lie like a template, by the same code in training and on the node.

SimpleITK's ImageRegistrationMethod on a small copy of the plane: mean squares over all pixels, two resolutions,
LBFGS from the identity, one thread and nothing drawn, so that the same plane always gets the same transform.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from dicomnode.detectors.contract import Array
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.resample import Alignment, Box, crop_resize
from dicomnode.errors import ConfigError

KINDS = ("rigid", "similarity", "affine")
TEMPLATE_KEY = "registration.template"
"""The template's name in a weights file."""
WORK_SIDE = 64
LEVELS, SMOOTHING = (4, 2), (2.0, 1.0)
"""Shrink factors and Gaussian sigmas (working pixels) of the two resolutions."""
ITERATIONS, EVALUATIONS = 15, 20
"""Steps per resolution, and looks per step, at most: what bounds the time."""
LARGEST_SHIFT, LARGEST_STRETCH = 0.3, 1.5
"""Of the side, and of a length: beyond, a transform is taken for a mistake of the optimiser."""
LARGEST_TURN = 45.0


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """Aligns prepared planes to ``template``: shape (size, size), float32, 0..1, the size of the network grid.

    ``kind``: one of ``KINDS``. Raises ConfigError for another one, or an unusable template.
    """

    kind: str
    template: Array

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no registration {self.kind!r}; there are {', '.join(KINDS)}")
        if self.template.ndim != 2 or self.template.shape[0] != self.template.shape[1]:
            raise ConfigError("the template of a registration has the shape (size, size)")
        if not np.isfinite(self.template).all():
            raise ConfigError("the template of a registration holds values that are not numbers")

    def align(self, prepared: Prepared) -> Prepared:
        """``prepared`` with image, mask and fields on the template's grid, and how they got there.

        A plane for which no better place than its own is found stays as it is; ``alignment.note`` says why. Raises
        ConfigError for a plane of another size.
        """
        if prepared.image.shape != self.template.shape:
            raise ConfigError(f"the template has the side {len(self.template)}, the plane {prepared.image.shape[0]}")
        alignment = self._found(prepared.image)
        if alignment.identity:
            return replace(prepared, alignment=alignment)
        fields = prepared.fields
        return replace(
            prepared,
            image=np.clip(alignment.forward(prepared.image, extend=True), 0.0, 1.0),
            mask=alignment.forward(prepared.mask.astype(np.float32)) > 0.5,
            fields=None if fields is None else alignment.forward(fields.astype(np.float32)) > 0.5,
            alignment=alignment,
        )

    def _found(self, image: Array) -> Alignment:
        alignment = _registered(self.kind, _small(self.template), _small(image), len(image))
        if alignment.identity:
            return alignment
        if not _plausible(alignment, len(image)):
            return Alignment(note="the transform found is implausibly large")
        before = float(np.mean((image - self.template) ** 2))
        after = float(np.mean((alignment.forward(image, extend=True) - self.template) ** 2))
        return alignment if after < before else Alignment(note="no transform is better than none")


def aligned(
    planes: Sequence[Prepared], kind: str | None, template: Array | None = None
) -> tuple[list[Prepared], Array | None]:
    """Training planes as the node will see them, and the template: made from them (``template_of``) where none is
    given. As they are, and None, without a ``kind``."""
    if kind is None:
        return list(planes), None
    known = template_of(planes, kind) if template is None else template
    registration = Registration(kind, known)
    return [registration.align(plane) for plane in planes], known


def template_of(planes: Sequence[Prepared], kind: str) -> Array:
    """The template of healthy ``planes``: their mean, and once more the mean after alignment to the first one.

    Shape (size, size), float32 in steps of float16, as a weights file keeps it.
    """
    first = Registration(kind, _mean([plane.image for plane in planes]))
    return _mean([first.align(plane).image for plane in planes])


def registration_of(preprocessing: dict[str, Any], weights: bytes) -> Registration | None:
    """The registration that a card's ``preprocessing`` names, with the template of its weights file; None without.

    Raises ConfigError for an unknown kind, or when the template is missing or does not fit the network grid.
    """
    kind = preprocessing.get("registration")
    if kind is None:
        return None
    try:
        template = safetensors.numpy.load(weights).get(TEMPLATE_KEY)
    except safetensors.SafetensorError as error:
        raise ConfigError(f"the weights are not a safetensors file: {error}") from error
    if template is None:
        raise ConfigError(f"the card names a registration, but the weights hold no {TEMPLATE_KEY}")
    found = Registration(kind, template.astype(np.float32))
    if len(found.template) != int(preprocessing["size"]):
        raise ConfigError("the template of the registration has another size than the network grid")
    return found


def statement(kind: str, planes: Sequence[Prepared]) -> str:
    """What became of the planes, for a report: "rigid: 11 of 12 planes aligned; 1 x no transform is better …"."""
    notes = Counter(plane.alignment.note for plane in planes if plane.alignment is not None)
    left = [f"{count} x {note}" for note, count in notes.most_common() if note]
    return "; ".join([f"{kind}: {notes['']} of {len(planes)} planes aligned", *left])


def _mean(images: Sequence[Array]) -> Array:
    total = np.zeros(images[0].shape, np.float64)
    for image in images:
        total += image
    return (total / len(images)).astype(np.float16).astype(np.float32)


def _small(image: Array) -> Array:
    side = min(len(image), WORK_SIDE)
    return crop_resize(image, Box(0, 0, len(image), len(image)), (side, side))


def _registered(kind: str, fixed: Array, moving: Array, size: int) -> Alignment:
    """The transform from ``fixed`` to ``moving``, in pixels of the network grid of ``size``."""
    import SimpleITK as sitk

    kinds: dict[str, Any] = {
        "rigid": sitk.Euler2DTransform,
        "similarity": sitk.Similarity2DTransform,
        "affine": lambda: sitk.AffineTransform(2),  # type: ignore[no-untyped-call]
    }
    transform = kinds[kind]()
    method: Any = sitk.ImageRegistrationMethod()  # type: ignore[no-untyped-call]
    method.SetNumberOfThreads(1)
    method.SetMetricAsMeanSquares()
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsLBFGS2(numberOfIterations=ITERATIONS, lineSearchMaximumEvaluations=EVALUATIONS)
    method.SetShrinkFactorsPerLevel(LEVELS)
    method.SetSmoothingSigmasPerLevel([sigma * 2.0 / len(fixed) for sigma in SMOOTHING])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(_centred(fixed), _centred(moving))
    except RuntimeError:
        return Alignment(note="the registration failed")
    return _in_pixels(np.array(transform.GetMatrix()).reshape(2, 2), np.array(transform.GetTranslation()), size)


def _centred(image: Array) -> Any:
    """A SimpleITK image that reaches from -1 to 1: turns and shifts then have the same scale for the optimiser."""
    import SimpleITK as sitk

    spacing = 2.0 / len(image)
    centred = sitk.GetImageFromArray(image)
    centred.SetSpacing((spacing, spacing))  # type: ignore[no-untyped-call]
    centred.SetOrigin((spacing / 2 - 1.0, spacing / 2 - 1.0))  # type: ignore[no-untyped-call]
    return centred


def _in_pixels(matrix: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], size: int) -> Alignment:
    """From (x, y) between -1 and 1 to (row, column) pixel indices; identity with a note for what is no transform."""
    turned = matrix[::-1, ::-1]
    middle = np.full(2, (size - 1) / 2)
    offset = middle + shift[::-1] * size / 2 - turned @ middle
    if not (np.isfinite(turned).all() and np.isfinite(offset).all()):
        return Alignment(note="the registration failed")
    (a, b), (c, d) = turned.tolist()
    return Alignment(((a, b), (c, d)), (float(offset[0]), float(offset[1])))


def _plausible(alignment: Alignment, size: int) -> bool:
    matrix = np.asarray(alignment.matrix)
    left, stretch, right = np.linalg.svd(matrix)
    middle = (size - 1) / 2
    moved = np.array(alignment.point_before(middle, middle)) - middle
    turn = (left @ right)[0, 0]
    return bool(
        np.linalg.det(matrix) > 0
        and stretch.max() <= LARGEST_STRETCH
        and stretch.min() >= 1 / LARGEST_STRETCH
        and np.hypot(*moved) <= LARGEST_SHIFT * size
        and turn >= np.cos(np.deg2rad(LARGEST_TURN))
    )

"""The built-in studies of the demo: a head CT, a chest radiograph and a brain FLAIR, each with a planted lesion."""

from __future__ import annotations

from collections.abc import Iterator

from dicomnode.demo.phantoms_ct import make_ct_head
from dicomnode.demo.phantoms_dx import make_dx_chest
from dicomnode.demo.phantoms_mr import make_mr_flair
from dicomnode.demo.study_dataset import PhantomStudy

__all__ = ["PhantomStudy", "make_ct_head", "make_dx_chest", "make_mr_flair", "make_studies"]


def make_studies(seed: int) -> Iterator[PhantomStudy]:
    """Make the three studies one after the other; the same ``seed`` gives the same studies, UIDs included."""
    for make in (make_ct_head, make_dx_chest, make_mr_flair):
        yield make(seed)

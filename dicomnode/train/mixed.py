"""The unlabelled mixed set of methods that learn from one, without leaking its split or held-back patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dicomnode.detectors.methods.contract import Planes


@dataclass(frozen=True, slots=True)
class Mixed:
    """Unlabelled planes; ``patients``: one name per plane. ``shared``: whether some are patients of the healthy set.

    Then the split itself is a label, which an unsupervised method must not read: both sets are used as one.
    """

    planes: Planes
    patients: Sequence[str]
    shared: bool

    def without(self, held_back: set[str], healthy: Planes) -> Planes:
        """The mixed set for a fit that must not see the patients ``held_back``; ``healthy``: the planes it sees."""
        own = self.planes.chosen([i for i, name in enumerate(self.patients) if name not in held_back])
        return joined(healthy, own) if self.shared else own


def joined(first: Planes, second: Planes) -> Planes:
    """Both sets as one; the stacks stay apart."""
    n = len(first)
    stacks = (*first.stacks, *(tuple(i + n for i in stack) for stack in second.stacks))
    images, masks = np.concatenate([first.images, second.images]), np.concatenate([first.masks, second.masks])
    fields = None
    if first.fields is not None and second.fields is not None:
        fields = np.concatenate([first.fields, second.fields])
    views = None if first.views is None or second.views is None else (*first.views, *second.views)
    return Planes(images, masks, stacks, fields=fields, views=views)

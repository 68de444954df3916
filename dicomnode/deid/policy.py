"""Which pixel policy goes with a profile."""

from __future__ import annotations

from dicomnode.deid.pixel_decision import PixelPolicy
from dicomnode.deid.pixels import PixelCleaner
from dicomnode.deid.profile import Profile


def policy_for(profile: Profile) -> PixelPolicy:
    """The gate of trust D21 with the masks of ``profile``, and a look into the pixels."""
    return PixelCleaner(profile.pixels)

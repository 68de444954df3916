"""Which pixel policy goes with a profile."""

from __future__ import annotations

from pathlib import Path

from dicomnode.deid.defacing_series import Faces
from dicomnode.deid.pixel_decision import PixelPolicy
from dicomnode.deid.pixels import PixelCleaner
from dicomnode.deid.profile import Profile


def policy_for(profile: Profile, faces: Path | None = None) -> PixelPolicy:
    """The gate of trust D21 with the masks of ``profile``, and a look into the pixels.

    ``faces``: folder of what ``find_faces`` kept, for a run with Clean Recognizable Visual Features.
    """
    return PixelCleaner(profile.pixels, Faces(faces) if faces is not None else None)

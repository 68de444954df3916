"""What the child of ``sandboxed`` does: it alone loads what looks into pixels, some 100 MiB of image processing."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from dicomnode.deid.engine import Applied, Deidentifier
from dicomnode.deid.files import planned
from dicomnode.deid.keys import ProjectKey
from dicomnode.deid.masks import PixelSettings
from dicomnode.deid.policy import policy_for
from dicomnode.deid.profile import Profile
from dicomnode.deid.pseudonyms import Pseudonyms
from dicomnode.deid.refusal import Quarantined
from dicomnode.deid.tree import Span
from dicomnode.errors import Transient
from dicomnode.sandbox import Room


def deidentify_in_child(request: Any, room: Room) -> dict[str, Any]:
    """Runs in the child: see ``SandboxedFiles``."""
    source = Path(request["source"])
    try:
        with planned(source, _deidentifier(_frozen(request["task"]))) as (new, applied, inside):
            pieces = list(new.pieces() if inside else new.whole_pieces())
            size = sum(len(piece) for piece in pieces if isinstance(piece, bytes))
            block = room.block(size)
            layout, at = [], 0
            for piece in pieces:
                if isinstance(piece, Span):
                    layout.append((True, piece.start, piece.length))
                    continue
                block.write(at, piece)
                layout.append((False, at, len(piece)))
                at += len(piece)
    except Quarantined as refusal:
        return {"held": refusal.reason, "detail": refusal.detail[:200]}
    except OSError as error:
        raise Transient(f"the file cannot be read: error {error.errno}") from error
    return {"layout": layout, "applied": _told(applied)}


def _told(applied: Applied) -> dict[str, Any]:
    return {
        "patient": applied.patient, "study": applied.study, "series": applied.series, "instance": applied.instance,
        "sop_class": applied.sop_class, "actions": dict(applied.actions), "codes": list(applied.codes),
        "notes": dict(applied.notes), "warnings": list(applied.warnings), "uids": dict(applied.uids),
    }  # fmt: skip


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _frozen(inner)) for key, inner in sorted(value.items()))
    return tuple(_frozen(inner) for inner in value) if isinstance(value, list) else value


@lru_cache(maxsize=8)
def _deidentifier(task: tuple[tuple[str, Any], ...]) -> Deidentifier:
    said = dict(task)
    profile = Profile(
        said["name"], said["version"], "", frozenset(said["options"]), dict(said["rules"]), dict(said["values"]),
        frozenset(said["safe_private"]), frozenset(said["words"]), PixelSettings.model_validate_json(said["pixels"]),
    )  # fmt: skip
    pseudonyms = Pseudonyms(ProjectKey.load(Path(said["key_file"])), said["prefix"])
    return Deidentifier(profile, pseudonyms, policy_for(profile, Path(said["faces"]) if said["faces"] else None))

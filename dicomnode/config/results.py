"""``[results]``: which objects a peer gets, what stands in for one that it refuses, and the banner on all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from dicomnode.config.table import Table

RESEARCH_BANNER = "RESEARCH – NOT FOR CLINICAL USE"

ResultKind = Literal["sc", "mf-sc", "seg", "pm", "gsps", "ko", "sr", "pdf", "page"]
RESULT_KINDS: tuple[str, ...] = get_args(ResultKind)
"""What a site may ask for, in the order in which it is sent: what is referred to goes first."""

VOLUME_DOCUMENT = "sr-volume"
"""The SR whose groups refer to segments: it goes with "sr" where "seg" goes too, and only after those arrived."""

SEND_ORDER: tuple[str, ...] = (*RESULT_KINDS[:7], VOLUME_DOCUMENT, *RESULT_KINDS[7:])
"""Every kind of Derived Instance, in the order in which it is made and sent."""

NEEDS: dict[str, tuple[str, ...]] = {VOLUME_DOCUMENT: ("seg", "sr")}
"""Kinds that mean nothing at a peer that has not got these."""

ProfileName = Literal["sc-sr", "viewer-rich", "sc-only", "sr-only", "ihe-air"]
PROFILES: dict[str, tuple[ResultKind, ...]] = {
    "sc-sr": ("sc", "sr"),
    "viewer-rich": ("sc", "seg", "pm", "sr", "pdf"),
    "sc-only": ("sc",),
    "sr-only": ("sr",),
    "ihe-air": ("seg", "pm", "ko", "sr"),
}
"""Named sets of objects, one for each kind of PACS; ``docs/configuration.md`` says which is for whom."""

STANDBY: dict[str, tuple[str, ...]] = {
    "sc": ("pdf",),
    "mf-sc": ("sc",),
    "seg": ("sc",),
    "pm": ("sc",),
    "gsps": ("sc",),
    "ko": ("page",),
    "sr": ("pdf",),
    VOLUME_DOCUMENT: ("sr",),
    "pdf": ("page",),
    "page": ("pdf",),
}
"""What carries the same message in a simpler object, for a peer that does not take the kind."""

STATES_OUTCOME = frozenset({"sc", "mf-sc", "sr", "pdf", "page"})
"""Kinds that say the outcome in words, findings or not. The others are silent, or mute, where nothing was found."""

StatusOutcome = Literal["not analysed", "failed"]


def stand_ins(kind: str) -> tuple[str, ...]:
    """Every kind that may stand in for ``kind``, best first."""
    found: dict[str, None] = {}
    ahead = list(STANDBY[kind])
    while ahead:
        nearer = ahead.pop(0)
        if nearer not in found and nearer != kind:
            found[nearer] = None
            ahead += STANDBY[nearer]
    return tuple(found)


def fallback(kind: str, refused: Collection[str]) -> str | None:
    """The kind to send in place of ``kind`` to a peer that takes none of ``refused``; None when nothing is left."""
    return next((other for other in stand_ins(kind) if other not in refused), None)


def with_stand_ins(kinds: Iterable[str]) -> tuple[str, ...]:
    """``kinds`` and everything that may have to stand in for them, in the order of sending."""
    wanted = {other for kind in kinds for other in (kind, *stand_ins(kind))}
    return tuple(kind for kind in SEND_ORDER if kind in wanted)


class _Selection(Table):
    profile: ProfileName | None = None
    objects: Annotated[tuple[ResultKind, ...], Field(min_length=1)] | None = None
    status: tuple[StatusOutcome, ...] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> _Selection:
        if self.profile is not None and self.objects is not None:
            raise ValueError("give profile or objects, not both")
        if self.objects is not None and not STATES_OUTCOME & set(self.objects):
            raise ValueError("none of these objects says that nothing was found: add sr, sc, mf-sc, pdf or page")
        return self

    @property
    def kinds(self) -> tuple[ResultKind, ...] | None:
        """The kinds that are asked for, None when this table does not say."""
        return self.objects if self.objects is not None else PROFILES[self.profile] if self.profile else None


class ResultOverride(_Selection):
    """``[results.peer."NAME"]``: other objects for one peer."""

    @model_validator(mode="after")
    def _says_something(self) -> ResultOverride:
        if self.kinds is None and self.status is None:
            raise ValueError("give profile, objects or status")
        return self


def _says_research(banner: str) -> str:
    if "RESEARCH" not in banner.upper():
        raise ValueError('every output has to say that it is research ("RESEARCH" in the text)')
    return banner


class ResultSettings(_Selection):
    """``[results]``: which objects are sent, for which outcomes a status page is, and the banner on each of them."""

    picture_all_up_to: Annotated[int, Field(ge=12)] = 60
    banner: Annotated[str, Field(min_length=8, max_length=64), AfterValidator(_says_research)] = RESEARCH_BANNER
    peer: dict[str, ResultOverride] = Field(default_factory=dict)

    def objects_for(self, peer: str) -> tuple[str, ...]:
        """The kinds of Derived Instances that ``peer`` gets, in the order of sending."""
        override = self.peer.get(peer)
        chosen: set[str] = set((override and override.kinds) or self.kinds or PROFILES["sc-sr"])
        if {"sr", "seg"} <= chosen:
            chosen.add(VOLUME_DOCUMENT)
        return tuple(kind for kind in SEND_ORDER if kind in chosen)

    def sent_to(self, peers: Iterable[str]) -> frozenset[str]:
        """The kinds that ``peers`` get."""
        return frozenset(kind for peer in peers for kind in self.objects_for(peer))

    def built_for(self, peers: Iterable[str]) -> frozenset[str]:
        """The kinds to make for ``peers``: what they get, and what may have to stand in for it."""
        return frozenset(kind for peer in peers for kind in with_stand_ins(self.objects_for(peer)))

    def status_for(self, peer: str) -> tuple[StatusOutcome, ...]:
        """The outcomes without a result of which ``peer`` gets a status page."""
        override = self.peer.get(peer)
        if override is not None and override.status is not None:
            return override.status
        return ("not analysed",) if self.status is None else self.status

"""docs/conformance.md: its place, and what it has to say now."""

from __future__ import annotations

from pathlib import Path

from tests.docs_conformance import network, objects, security, services, settings, statuses
from tests.docs_conformance.markdown import fill

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"


def sections() -> dict[str, str]:
    """Name of each marked place and its text, drawn from the code."""
    return {
        **network.sections(),
        **statuses.sections(),
        **settings.sections(),
        **objects.sections(),
        **services.sections(),
        **security.sections(),
    }


def current() -> str:
    """The document with all its tables made anew."""
    return fill(DOCUMENT.read_text(encoding="utf-8"), sections())

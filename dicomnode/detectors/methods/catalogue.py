"""All methods by name. A newcomer adds a module with ``METHODS`` to a family's package; nothing else changes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from pydantic import ValidationError

from dicomnode.detectors import methods
from dicomnode.detectors.methods.contract import Method, MethodEntry, read_settings
from dicomnode.errors import ConfigError

FAMILIES = ("autoencoders", "adversarial", "diffusion", "features", "classical", "supervised")


@cache
def catalogue() -> Mapping[str, MethodEntry]:
    """Every method by name, in order of family and module. Raises ConfigError when two have one name."""
    found: dict[str, MethodEntry] = {}
    for family in FAMILIES:
        package = importlib.import_module(f"{methods.__name__}.{family}")
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            for entry in getattr(module, "METHODS", ()):
                if entry.name in found:
                    raise ConfigError(f"two methods are called {entry.name}")
                found[entry.name] = entry
    return found


def method_entry(name: str) -> MethodEntry:
    """The entry of ``name``. Raises ConfigError with the names there are."""
    entries = catalogue()
    if name not in entries:
        raise ConfigError(f"there is no method {name!r}; there are {', '.join(entries)}")
    return entries[name]


def build_method(name: str, settings: Mapping[str, object]) -> Method:
    """The unfitted method ``name``. Raises ConfigError for an unknown name or settings it does not take."""
    entry = method_entry(name)
    try:
        return entry.build(read_settings(entry, settings))
    except ValidationError as error:
        wrong = ", ".join(".".join(str(part) for part in item["loc"]) + ": " + item["msg"] for item in error.errors())
        raise ConfigError(f"settings of {name}: {wrong}") from error
    except ValueError as error:
        raise ConfigError(f"settings of {name}: {error}") from error

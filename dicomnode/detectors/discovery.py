"""Find the detectors: modules of this package that expose ``DETECTOR``, and entry points of other packages.

Needs no torch: a detector imports it in ``load`` only.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points

import dicomnode.detectors
from dicomnode.config.hosted import Hosted
from dicomnode.detectors.contract import Detector
from dicomnode.detectors.hosted.plugin import hosted_sources

ENTRY_POINT_GROUP = "dicomnode.detectors"

Source = tuple[str, Callable[[], object]]
"""A name to show when it is broken, and how to get the detector object."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What was found. ``detectors``: by detector name. ``broken``: plugin (module or entry point) → reason."""

    detectors: dict[str, Detector] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


def discover(hosted: Mapping[str, Hosted] | None = None) -> Discovery:
    """All detectors, built-in ones first, then plugins, then the ``hosted`` models of the configuration.

    Never raises: a plugin or model that cannot be used is listed with the reason.
    """
    built_in = package_sources(dicomnode.detectors.__path__, dicomnode.detectors.__name__)
    return collect([*built_in, *_entry_points(), *hosted_sources(hosted or {})])


def collect(sources: Iterable[Source]) -> Discovery:
    """Load every source; the first of two detectors with one name wins, the second is listed as broken."""
    found = Discovery()
    for label, load in sources:
        try:
            plugin = load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - process edge: foreign plugin code must not stop the node
            found.broken[label] = f"{type(error).__name__}: {error}"
            continue
        _admit(found, label, plugin)
    return found


def package_sources(path: Iterable[str], package: str) -> Iterator[Source]:
    """The modules of a package folder whose text mentions ``DETECTOR``; other modules are not plugins."""
    for module in pkgutil.iter_modules(path):
        if _exposes_detector(module):
            full = f"{package}.{module.name}"
            yield full, lambda full=full: importlib.import_module(full).DETECTOR  # type: ignore[misc]


def _exposes_detector(module: pkgutil.ModuleInfo) -> bool:
    spec = module.module_finder.find_spec(module.name, None)
    if spec is None or spec.origin is None or module.ispkg:
        return False
    try:
        with open(spec.origin, "rb") as source:  # noqa: PTH123 - an import path, not a data file
            return any(line.startswith(b"DETECTOR") for line in source)
    except OSError:
        return False


def _entry_points() -> Iterator[Source]:
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        yield f"entry point {point.name}", point.load


def _admit(found: Discovery, label: str, plugin: object) -> None:
    if not isinstance(plugin, Detector):
        found.broken[label] = "DETECTOR lacks one of name, version, default_model, description, accepts, load"
    elif not isinstance(plugin.name, str) or plugin.name != plugin.name.strip().lower() or not plugin.name:
        found.broken[label] = "the name of a detector is lower case text without blanks around it"
    elif plugin.name in found.detectors:
        found.broken[label] = f"another detector is already called {plugin.name}"
    else:
        found.detectors[plugin.name] = plugin

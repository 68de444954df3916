"""From ``Config`` to the parts of a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.config import Config, ConfigSource, check_secrets
from dicomnode.deid.leaving import Gate
from dicomnode.deid.profile import load_profile
from dicomnode.detectors.contract import Detector, HasOwnModel
from dicomnode.detectors.discovery import discover
from dicomnode.errors import ConfigError
from dicomnode.models.registry import ModelRegistry
from dicomnode.store.clock import NodeClock, new_clock
from dicomnode.store.engine import BUSY_TIMEOUT_S, Store
from dicomnode.store.spool import Spool


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What every process of the node is built from; picklable. ``clock``: one for all of them."""

    config: Config
    source: ConfigSource
    clock: NodeClock = field(default_factory=new_clock)

    def store(self, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Store:
        """The database; ``busy_timeout_s`` as for ``Store``. Raises ConfigError for a URL that is not one."""
        return Store(self.config.node.database_url, busy_timeout_s=busy_timeout_s)

    def spool(self) -> Spool:
        """The spool below the data folder. Raises ConfigError when it cannot be made."""
        try:
            self.config.node.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Spool(self.config.node.data_dir.resolve() / "spool")
        except OSError as error:
            raise ConfigError(f"node.data_dir: the spool cannot be made: {error.strerror}") from error

    def check_secrets(self) -> None:
        """Raise ConfigError with the line of a key, password or token file that others can read."""
        check_secrets(self.config, self.source)

    def gate(self) -> Gate | None:
        """What everything for a peer with ``deid`` goes through; None when there is no such peer.

        Raises ConfigError with the line of a peer whose profile cannot be used, and without a key.
        """
        peers = [(index, peer.deid) for index, peer in enumerate(self.config.peer) if peer.deid is not None]
        for index, profile in peers:
            try:
                load_profile(profile)
            except ConfigError as error:
                raise self.source.fault(("peer", index, "deid"), str(error)) from error
        return Gate(self.config) if peers else None

    def registry(self) -> ModelRegistry:
        """The shipped models and those of ``node.model_dir``."""
        folder: Path | None = self.config.node.model_dir
        return ModelRegistry([folder] if folder else [])

    def detectors(self) -> Mapping[str, Detector]:
        """Every detector that a route may name. Raises ConfigError with the line of a route that names another."""
        found = discover(self.config.hosted)
        for index, route in enumerate(self.config.route):
            if route.detector in found.detectors:
                continue
            why = found.broken.get(route.detector, f"there are {', '.join(sorted(found.detectors))}")
            message = f"detector {route.detector!r} cannot be used: {why}"
            raise self.source.fault(("route", index, "detector"), message)
        return found.detectors

    def check_models(self, detectors: Mapping[str, Detector]) -> dict[str, str]:
        """Model name to weights SHA-256 of every route. Raises ConfigError with the line at fault."""
        registry, digests = self.registry(), {}
        for index, route in enumerate(self.config.route):
            detector = detectors[route.detector]
            if isinstance(detector, HasOwnModel):
                if route.model is not None:
                    message = f"{route.detector} is a hosted model and takes no other: leave model out"
                    raise self.source.fault(("route", index, "model"), message)
                digests[route.detector] = detector.own_model.sha256
                continue
            name = route.model or detector.default_model
            try:
                digests[name] = registry.get(name).card.sha256
            except ConfigError as error:
                raise self.source.fault(("route", index, "model"), str(error)) from error
        return digests

"""The listening sockets. The supervisor binds them and hands them on, so that they outlive a process that receives."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from dicomnode.config import Config
from dicomnode.errors import ConfigError

BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Sockets:
    """The listening sockets of a node; every process that receives accepts from them. ``plain``, ``tls``: or None."""

    plain: socket.socket | None
    tls: socket.socket | None

    @property
    def ports(self) -> dict[str, int]:
        """The bound ports: ``port`` without TLS, ``tls_port``."""
        named = (("port", self.plain), ("tls_port", self.tls))
        return {name: int(one.getsockname()[1]) for name, one in named if one is not None}

    def close(self) -> None:
        """Let go of them; they go on listening while another process holds them."""
        for one in (self.plain, self.tls):
            if one is not None:
                one.close()


def bind(config: Config) -> Sockets:
    """Listen where ``[node]`` and ``[receive.tls]`` say. Raises ConfigError when an address cannot be used."""
    node, tls = config.node, config.receive.tls
    plain = _bound("node.port", node.host, node.port) if tls is None or tls.plain else None
    try:
        secure = None if tls is None else _bound("receive.tls.port", node.host, tls.port)
    except ConfigError:
        if plain is not None:
            plain.close()
        raise
    return Sockets(plain, secure)


def _bound(setting: str, host: str, port: int) -> socket.socket:
    try:
        return listen_on(host, port)
    except OSError as error:
        raise ConfigError(f"{setting}: {host}:{port} cannot be used: {error.strerror}") from error


def listen_on(host: str, port: int) -> socket.socket:
    """A socket that listens there, IPv6 where ``host`` is such an address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening

"""The Storage SCP: undecoded bytes to the spool, durable before the peer hears Success (PS3.4 annex B)."""

from dicomnode.receive.server import StorageServer

__all__ = ["StorageServer"]

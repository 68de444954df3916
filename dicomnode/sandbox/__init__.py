"""Untrusted input is read in a child process: a named function, bounded in memory, computing time and wall clock."""

from dicomnode.sandbox.limits import SandboxLimits
from dicomnode.sandbox.pool import Sandbox
from dicomnode.sandbox.process import Answer
from dicomnode.sandbox.room import Room
from dicomnode.sandbox.walls import Walls, walls

__all__ = ["Answer", "Room", "Sandbox", "SandboxLimits", "Walls", "walls"]

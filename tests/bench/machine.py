"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
import pydicom
import pynetdicom
import sqlalchemy
import torch

import dicomnode

FSYNCS = 100


@dataclass(frozen=True, slots=True)
class Machine:
    """``load``: load average over one minute at the start; ``fsync_ms``: median of a 4 KiB write with fsync."""

    date: str
    cpu: str
    cores: int
    memory_bytes: int
    accelerator: str
    system: str
    load: float
    fsync_ms: float
    versions: dict[str, str]


def look(work: Path) -> Machine:
    """Describe this machine, and the disk below ``work``."""
    versions = {"dicomnode": dicomnode.__version__, "Python": platform.python_version()}
    versions |= {"pynetdicom": pynetdicom.__version__, "pydicom": pydicom.__version__}
    versions |= {"SQLAlchemy": sqlalchemy.__version__, "torch": torch.__version__}
    return Machine(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        cpu=_cpu(),
        cores=os.cpu_count() or 0,
        memory_bytes=psutil.virtual_memory().total,
        accelerator=torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        load=os.getloadavg()[0],
        fsync_ms=_fsync_ms(work),
        versions=versions,
    )


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _fsync_ms(work: Path) -> float:
    times = []
    with (work / "fsync-probe").open("wb", buffering=0) as file:
        for _ in range(FSYNCS):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return median(times) * 1000

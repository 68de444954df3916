"""``python -m tests.bench.detect``: how fast Series are analysed, and how near that is to what the machine could do."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import click
import torch
from pydicom import Dataset
from torch.utils.flop_counter import FlopCounterMode

from dicomnode.config import Config
from dicomnode.demo.phantoms import PhantomStudy, make_studies
from dicomnode.detect.analyse import detect_all
from dicomnode.detect.reader import Reader
from dicomnode.detect.volume import LoadedVolume, SourceFile
from dicomnode.detect.warm import WarmDetectors
from dicomnode.detectors.contract import LoadedDetector
from dicomnode.detectors.discovery import discover
from dicomnode.detectors.ensemble import planes_of
from dicomnode.detectors.preprocess import Prepared
from dicomnode.detectors.residual import ResidualDetector
from dicomnode.dicom.references import InstanceReference, SeriesReference
from dicomnode.dicom.summary import SeriesSummary
from dicomnode.models.registry import ModelRegistry
from tests.bench.document import DOCUMENT, with_section
from tests.bench.machine import look
from tests.docs_conformance.markdown import table

T = TypeVar("T")
DETECTORS = {"CT": "ct-head", "DX": "cxr", "MR": "mr-brain-flair"}
TITLE = "Detection"
H200 = (989e12, 4.8e12)
"""Dense bfloat16 FLOP/s and bytes/s of an H200 by its maker (methods.md, 4.1)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One detector on one accelerator. Times in ms; ``flop`` and ``byte``: per plane, of all folds and methods.

    ``decode``, ``prepare``, ``network``: median ms per plane. ``p50``, ``p95``: ms per study, alone.
    ``together``: ms per study when ``together_of`` studies are analysed at once.
    """

    detector: str
    accelerator: str
    ways: str
    planes: int
    decode: float
    prepare: float
    network: float
    p50: float
    p95: float
    together: float
    together_of: int
    flop: float
    byte: float

    @property
    def instances_s(self) -> float:
        """Instances per second through decoding and detection, one study after the other."""
        return 1000.0 * self.planes / (self.decode * self.planes + self.p50)

    @property
    def studies_min(self) -> float:
        return 60_000.0 / (self.decode * self.planes + self.p50)


@dataclass(frozen=True, slots=True)
class Bound:
    """What the machine can do: FLOP/s of a large matrix product and bytes/s of a large copy; ``source``: whence."""

    flops: float
    bandwidth: float
    source: str


def measure_detection(work: Path, repeats: int, together: int, accelerator: str) -> tuple[list[Rate], Bound]:
    """All shipped detectors on the studies of the demo. ``repeats``: analyses of each study."""
    config = Config.model_validate({"node": {"accelerator": accelerator}})
    warm = WarmDetectors(config, discover().detectors, ModelRegistry())
    rates = []
    for study in make_studies(7):
        name = DETECTORS[str(study.datasets[0].Modality)]
        rates.append(_rate(work / name, study, warm.get(name, None), repeats, together))
    return rates, bound_of(warm.accelerator)


def _rate(work: Path, study: PhantomStudy, detector: LoadedDetector, repeats: int, together: int) -> Rate:
    reader = Reader()
    _load(reader, study, work)
    loaded, decode = timed(lambda: _load(reader, study, work), max(2, repeats // 4))
    volume = loaded.volume
    detector.detect(volume)
    alone = [timed(lambda: detector.detect(volume), 1)[1][0] for _ in range(repeats)]
    many = timed(lambda: detect_all(detector, [volume] * together), max(1, repeats // 4))[1]
    n = len(volume.planes)
    prepare, network, flop, byte, ways = _stages(detector, loaded, repeats)
    return Rate(
        detector.model.name,
        detector.accelerator,
        ways,
        n,
        statistics.median(decode) / n,
        prepare,
        network,
        statistics.median(alone),
        sorted(alone)[max(0, round(0.95 * len(alone)) - 1)],
        statistics.median(many) / together,
        together,
        flop,
        byte,
    )


def _stages(detector: LoadedDetector, loaded: LoadedVolume, repeats: int) -> tuple[float, float, float, float, str]:
    """ms per plane to prepare and to run the networks, FLOP and bytes of weights and activations per plane, ways."""
    if not isinstance(detector, ResidualDetector):
        return 0.0, 0.0, 0.0, 0.0, ""
    planes = [plane for plane in (detector.prepare(one) for one in loaded.volume.planes) if isinstance(plane, Prepared)]
    prepare = timed(lambda: [detector.prepare(one) for one in loaded.volume.planes], max(2, repeats // 4))[1]
    batch = planes_of(planes, stacked=True)
    network = timed(lambda: detector.ensemble.judge(batch), max(2, repeats // 4))[1]
    with FlopCounterMode(display=False) as counter:
        detector.ensemble.judge(batch)
    flop = counter.get_total_flops() / len(planes)
    byte = 4.0 * batch.images[0].size * 2 * len(detector.ensemble.kinds) * len(detector.ensemble.folds)
    per_plane = len(loaded.volume.planes)
    ways = detector.ensemble.ways()
    return statistics.median(prepare) / per_plane, statistics.median(network) / len(planes), flop, byte, ways


def timed(call: Callable[[], T], repeats: int) -> tuple[T, list[float]]:
    """The last answer of ``call`` and its times in ms."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(1000.0 * (time.perf_counter() - start))
    return answer, times


def bound_of(accelerator: str) -> Bound:
    """The bound of ``accelerator``: an H200's by its maker, of anything else measured here."""
    if accelerator.startswith("cuda") and "H200" in torch.cuda.get_device_name(accelerator):
        return Bound(*H200, "by the maker, dense bfloat16")
    place, side = torch.device(accelerator), 2048
    one, other = torch.rand(side, side, device=place), torch.rand(side, side, device=place)
    product = min(timed(lambda: one @ other, 5)[1]) / 1000.0
    large = torch.rand(64 * 2**20, device=place)
    copy = min(timed(large.clone, 5)[1]) / 1000.0
    return Bound(
        2 * side**3 / product, 2 * large.numel() * 4 / copy, "measured here: product of 2048 x 2048, copy of 256 MiB"
    )


def _load(reader: Reader, study: PhantomStudy, work: Path) -> LoadedVolume:
    work.mkdir(parents=True, exist_ok=True)
    paths = sorted(work.iterdir()) or study.write(work)
    return reader.load(_summary(study.datasets), [_source(d, p) for d, p in zip(study.datasets, paths, strict=True)])


def _source(dataset: Dataset, path: Path) -> SourceFile:
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPClassUID, dataset.SOPInstanceUID)
    return SourceFile(InstanceReference(*(str(uid) for uid in uids)), path)


def _summary(datasets: Sequence[Dataset]) -> SeriesSummary:
    first = datasets[0]
    reference = SeriesReference(str(first.StudyInstanceUID), str(first.SeriesInstanceUID))
    return SeriesSummary(reference, len(datasets), {"Modality": (str(first.Modality),)})


def section(rates: Sequence[Rate], bound: Bound, about: str) -> str:
    """The section of docs/benchmarks.md."""
    head = ("model", "accelerator", "planes", "instances/s", "studies/min", "ms per study p50 / p95", "together")
    rows = [
        (
            rate.detector,
            f"{rate.accelerator} ({rate.ways})",
            str(rate.planes),
            f"{rate.instances_s:.1f}",
            f"{rate.studies_min:.1f}",
            f"{rate.p50:.0f} / {rate.p95:.0f}",
            f"{rate.together:.0f} ms per study, {rate.together_of} at once",
        )
        for rate in rates
    ]
    stages = ("model", "decode", "prepare", "networks", "GFLOP per plane", "of the FLOP bound", "of the byte bound")
    parts = [
        (
            rate.detector,
            f"{rate.decode:.1f} ms",
            f"{rate.prepare:.1f} ms",
            f"{rate.network:.1f} ms",
            f"{rate.flop / 1e9:.3f}",
            f"{100 * rate.flop / (rate.network / 1000) / bound.flops:.1f} %",
            f"{100 * rate.byte / (rate.network / 1000) / bound.bandwidth:.2f} %",
        )
        for rate in rates
    ]
    limits = (
        f"Bound: {bound.flops / 1e9:.0f} GFLOP/s, {bound.bandwidth / 1e9:.1f} GB/s ({bound.source}). Bytes are those "
        "of planes in and maps out of every method and fold; what convolutions move inside is not in them. Times are "
        "wall clock, one process; instances/s and studies/min are decoding and detection of one study after the other, "
        "without reports and delivery."
    )
    written = f"Written by `make bench-detect`. {about}"
    return "\n\n".join((f"## {TITLE}", written, table(head, rows), table(stages, parts), limits))


@click.command()
@click.option("--repeats", type=click.IntRange(4), default=20, show_default=True, help="Analyses of each study.")
@click.option("--together", type=click.IntRange(1), default=4, show_default=True, help="Studies analysed at once.")
@click.option("--accelerator", default="auto", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default=DOCUMENT, help="The document.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(repeats: int, together: int, accelerator: str, output: Path, as_json: bool) -> None:
    """Measure decoding, preparation and networks of every shipped detector; write docs/benchmarks.md."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-bench-") as folder:
        machine = look(Path(folder))
        rates, bound = measure_detection(Path(folder) / "studies", repeats, together, accelerator)
    about = (
        f"{machine.date}; {machine.cpu}, {machine.cores} cores, accelerator {machine.accelerator}, "
        f"torch {machine.versions['torch']}, load average at the start {machine.load:.1f}."
    )
    output.write_text(with_section(output.read_text(encoding="utf-8"), TITLE, section(rates, bound, about)), "utf-8")
    if as_json:
        click.echo(json.dumps({"rates": [asdict(rate) for rate in rates], "bound": asdict(bound)}, indent=1))
    click.echo(f"written: {output}", err=True)


if __name__ == "__main__":
    main()

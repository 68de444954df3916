"""The parts of docs/methods.md that are written from the catalogue."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from dicomnode.detectors import methods
from dicomnode.detectors.methods.catalogue import FAMILIES, catalogue
from dicomnode.detectors.methods.contract import MethodEntry
from tests.docs_conformance.markdown import table
from tests.docs_methods.rows import ROWS, Row

DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"
TESTS = {family: f"tests/unit/test_methods_{family}.py" for family in FAMILIES}
OWN_TESTS = {"anomalypro": "tests/unit/test_anomalypro.py", "lung-features": "tests/unit/test_methods_lung_features.py"}
SEEDS = {
    "000": "Seed 000: Siddiq, review",
    "001": "Seed 001: Zinga, GAN and DenseNet121 for chest radiographs",
    "002": "Seed 002: Tschuchnig and Gadermayr, mini review",
    "003": "Seed 003: MedAI AnomalyPro",
    "004": "Seed 004: analytical review",
}
SETS = ("cxr", "ct", "mr")


@cache
def places() -> dict[str, tuple[str, str]]:
    """Module file and test file of every method."""
    found = {}
    for family in FAMILIES:
        package = importlib.import_module(f"{methods.__name__}.{family}")
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            for entry in getattr(module, "METHODS", ()):
                path = module.__name__.replace(".", "/") + ".py"
                found[entry.name] = (path, OWN_TESTS.get(entry.name, TESTS[family]))
    return found


def methods_table() -> str:
    """One row per method."""
    head = ("method", "family", "learns from", "source", "score", "map")
    return table(head, [_method(entry) for entry in catalogue().values()])


def _method(entry: MethodEntry) -> tuple[str, ...]:
    remarks = [entry.regime.name.lower().replace("_", " ")]
    remarks += ["needs neighbours"] if entry.stacked else []
    remarks += ["opt-in"] if entry.opt_in else []
    return f"`{entry.name}`", entry.family.value, ", ".join(remarks), entry.source, entry.score, entry.explains


def rows_tables() -> str:
    """One table per paper."""
    head = ("row", "what", "methods", "where and test", "left out, or why not")
    parts = []
    for number, title in SEEDS.items():
        own = [_row(row) for row in ROWS if row.number.startswith(number)]
        parts.append(f"### {title}\n\n{table(head, own)}")
    return "\n\n".join(parts)


def _row(row: Row) -> tuple[str, ...]:
    names = [entry.name for entry in catalogue().values() if row.number in entry.rows]
    modules = dict.fromkeys((*row.also, *(places()[name][0] for name in names)))
    tests = dict.fromkeys((*row.tests, *(places()[name][1] for name in names)))
    where = " ".join(f"`{path.removeprefix('dicomnode/')}`" for path in modules)
    shown = " ".join(f"`{path.removeprefix('tests/unit/')}`" for path in tests)
    return (
        row.number,
        row.what,
        " ".join(f"`{name}`" for name in names),
        f"{where} · {shown}" if modules else "",
        row.note,
    )


def part_of(document: str, name: str) -> str:
    """What stands between the marks of ``name``; raises ValueError where there are none."""
    before, after = marks(name)
    start, end = document.index(before) + len(before), document.index(after)
    return document[start:end].strip()


def with_part(document: str, name: str, content: str) -> str:
    """``document`` with what stands between the marks of ``name`` replaced."""
    before, after = marks(name)
    start, end = document.index(before) + len(before), document.index(after)
    return f"{document[:start]}\n{content.strip()}\n{document[end:]}"


def marks(name: str) -> tuple[str, str]:
    """The marks around a written part."""
    return f"<!-- {name} -->", f"<!-- end of {name} -->"


def lowered(results: str) -> str:
    """``results.md`` of ``dicomnode compare`` without its title, its headings two levels down."""
    _, _, body = results.strip().partition("\n")
    return "\n".join(f"##{line}" if line.startswith("## ") else line for line in body.strip().splitlines())

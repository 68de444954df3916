"""The benchmark of the database at scale measures what it says."""

from __future__ import annotations

from pathlib import Path

from dicomnode.audit import verify
from dicomnode.store.engine import Store
from tests.bench.scale import measure_scale
from tests.bench.scale import section as scale_section


def test_the_database_at_scale_is_filled_measured_and_told(tmp_path: Path) -> None:
    """The log that was filled verifies, every figure is there, and the section keeps the limits beside it."""
    found = measure_scale(tmp_path, 2000, 1000, 5, lambda _: None)
    store = Store(f"sqlite:///{tmp_path}/scale.sqlite3")
    with store.read() as session:
        assert verify(session).rows == found.audit_rows == 2000
    store.close()
    assert (found.jobs, found.instances) == (1000, 2000)
    text = scale_section(found, "a machine")
    assert "| claim a job (a durable transaction) |" in text
    assert "| 5 ms |" in text

"""Whatever state a Study is in: retention takes it whole when nothing of it is open, and otherwise nothing of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dicomnode.audit import verify
from dicomnode.store.tables import AuditRow, InstanceRow, RemovalRow, SeriesRow
from tests.integration import retention_fixtures as ward

DONE = ("findings", "no findings")
SENT = st.builds(
    ward.Sent,
    destination=st.sampled_from([ward.COMMITS, ward.TAKES]),
    state=st.sampled_from(["delivered", "warning"]),
    committed=st.just(True),
)
ANALYSIS = st.one_of(
    st.builds(ward.Analysis, outcome=st.sampled_from(DONE)),
    st.builds(
        ward.Analysis,
        outcome=st.sampled_from((*DONE, "not analysed")),
        send_to=st.sampled_from([(ward.COMMITS,), (ward.TAKES,), (ward.COMMITS, ward.TAKES)]),
        objects=st.lists(SENT, max_size=3).map(tuple),
        job=st.sampled_from(["done", None]),
    ),
)
SERIES = st.builds(
    ward.OneSeries,
    images=st.integers(1, 2),
    analyses=st.lists(ANALYSIS, min_size=1, max_size=2).map(tuple),
    job=st.sampled_from(["done", None]),
)
LIVE = ("ready", "leased", "dead")
SERIES_DEFECTS = [
    {"state": "open"},
    {"connected": True},
    {"generation": 2},
    {"analyses": ()},
    *({"job": state} for state in LIVE),
]
ANALYSIS_DEFECTS = [{"outcome": None}, {"outcome": "failed"}, *({"job": state} for state in LIVE), {"objects": ()}]
SENT_DEFECTS = [{"state": "waiting"}, {"state": "failed"}, {"state": "replaced"}, {"committed": False}]


SETTLED = st.builds(ward.OneStudy, series=st.lists(SERIES, min_size=1, max_size=2).map(tuple))
AGES = (0.01, 29.9, 30.1)


def variants(study: ward.OneStudy) -> Iterator[ward.OneStudy]:
    """A settled Study at several ages; and old, with each thing wrong that there is, one at a time."""
    yield from (replace(study, days=days) for days in AGES)
    first, *others = study.series
    for change in SERIES_DEFECTS:
        yield replace(study, series=(replace(first, **change), *others))
    analysis, *more = first.analyses
    changes = [replace(analysis, **change) for change in ANALYSIS_DEFECTS]
    for sent in analysis.objects[:1]:
        rest = analysis.objects[1:]
        changes += [replace(analysis, objects=(replace(sent, **change), *rest)) for change in SENT_DEFECTS]
    for changed in changes:
        yield replace(study, series=(replace(first, analyses=(changed, *more)), *others))


NO_ROOM = 10**18
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


def settled(study: ward.OneStudy) -> bool:
    """Is nothing of it open? Said again, in other words than the code's."""
    for series in study.series:
        if series.state == "open" or series.connected or series.job in ("ready", "leased", "dead"):
            return False
        if not (series.generation == 1 and series.analyses):
            return False
        for analysis in series.analyses:
            if analysis.outcome in (None, "failed") or analysis.job in ("ready", "leased", "dead"):
                return False
            arrived = {sent.destination for sent in analysis.objects if sent.state in ("delivered", "warning")}
            if analysis.outcome in ("findings", "no findings") and not arrived.issuperset(analysis.send_to):
                return False
            for sent in analysis.objects:
                if sent.state in ("waiting", "failed"):
                    return False
                if sent.destination == ward.COMMITS and sent.state != "replaced" and not sent.committed:
                    return False
    return True


@settings(max_examples=12, deadline=None)
@given(SETTLED, st.sampled_from([(30.0, 0), (30.0, 0), (None, NO_ROOM), (30.0, NO_ROOM)]))
def test_nothing_undelivered_uncommitted_or_unanalysed_is_ever_deleted(
    base: ward.OneStudy, reasons: tuple[float | None, int]
) -> None:
    """R13: the sources of a result stay until it is delivered and committed, whatever the clock and the disk say."""
    days, reserve = reasons
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        site = ward.Ward(Path(folder), ward.settings(days, reserve))
        admitted = {site.admit(study): study for study in variants(base)}
        files = {number: site.files(number) for number in admitted}
        assert site.run() == sum(map(_gone, files.values()))
        for number, study in admitted.items():
            due = (days is not None and study.days > 30) or (reserve and study.days > 0.05)
            goes = settled(study) and bool(due)
            assert [path.exists() for path in files[number]] == [not goes] * len(files[number]), study
        with site.store.read() as session:
            left = select(SeriesRow.study_id).join(InstanceRow, InstanceRow.series_id == SeriesRow.id)
            assert set(session.scalars(left)) == {number for number, found in files.items() if not _gone(found)}
            told = session.scalars(select(AuditRow.kind)).all()
            assert told == ["study deleted"] * sum(map(_gone, files.values()))
            assert session.scalars(select(RemovalRow)).all() == []
            assert verify(session).ok
        site.store.close()


def _gone(files: list[Path]) -> bool:
    return not any(path.exists() for path in files)

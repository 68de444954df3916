"""Whatever state a Study is in: retention takes it whole when nothing of it is open, and otherwise nothing of it."""

from __future__ import annotations

import tempfile
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


@st.composite
def studies(draw: st.DrawFn) -> ward.OneStudy:
    """A Study, settled or nearly so, with one thing wrong in most cases: two faults would hide each other."""
    days = draw(st.sampled_from([0.01, 5.0, 29.9, 30.1, 400.0, 400.0, 400.0]))
    series = draw(st.lists(SERIES, min_size=1, max_size=2))
    where = draw(st.sampled_from(["nowhere", "series", "analysis", "object", "object"]))
    one = series[0]
    if where == "series":
        one = replace(one, **draw(st.sampled_from(SERIES_DEFECTS)))
    elif where != "nowhere":
        one = replace(one, analyses=(_damaged(draw, one.analyses[0], where), *one.analyses[1:]))
    return ward.OneStudy(days, (one, *series[1:]))


def _damaged(draw: st.DrawFn, analysis: ward.Analysis, where: str) -> ward.Analysis:
    if where == "object" and analysis.objects:
        sent = replace(analysis.objects[0], **draw(st.sampled_from(SENT_DEFECTS)))
        return replace(analysis, objects=(sent, *analysis.objects[1:]))
    return replace(analysis, **draw(st.sampled_from(ANALYSIS_DEFECTS)))


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


@settings(max_examples=50, deadline=None)
@given(st.lists(studies(), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_nothing_undelivered_uncommitted_or_unanalysed_is_ever_deleted(
    given_studies: list[ward.OneStudy], by_age: bool, no_room: bool
) -> None:
    """R13: the sources of a result stay until it is delivered and committed, whatever the clock and the disk say."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        site = ward.Ward(Path(folder), ward.settings(30.0 if by_age else None, NO_ROOM if no_room else 0))
        admitted = {site.admit(study): study for study in given_studies}
        files = {number: site.files(number) for number in admitted}
        site.run()
        for number, study in admitted.items():
            due = (by_age and study.days > 30) or (no_room and study.days > 0.05)
            goes = settled(study) and due
            assert [path.exists() for path in files[number]] == [not goes] * len(files[number]), study
            with site.store.read() as session:
                images = select(InstanceRow.id).join(SeriesRow, SeriesRow.id == InstanceRow.series_id)
                assert bool(session.scalars(images.where(SeriesRow.study_id == number)).all()) == (not goes)
        with site.store.read() as session:
            told = session.scalars(select(AuditRow.kind)).all()
            assert told == ["study deleted"] * sum(not any(path.exists() for path in found) for found in files.values())
            assert session.scalars(select(RemovalRow)).all() == []
            assert verify(session).ok
        site.store.close()

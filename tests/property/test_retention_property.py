"""Whatever state a Study is in: retention takes it whole when nothing of it is open, and otherwise nothing of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from dicomnode.audit import verify
from dicomnode.store.tables import AuditRow, InstanceRow, RemovalRow, SeriesRow
from tests.integration import retention_fixtures as ward

MOSTLY = st.sampled_from
SENT = st.builds(
    ward.Sent,
    destination=MOSTLY([ward.COMMITS, ward.TAKES]),
    state=MOSTLY(["delivered"] * 6 + ["warning", "replaced", "waiting", "failed"]),
    committed=MOSTLY([True] * 5 + [False]),
)
ANALYSIS = st.builds(
    ward.Analysis,
    outcome=MOSTLY(["findings", "no findings"] * 3 + ["not analysed", "not analysed", "failed", None]),
    send_to=MOSTLY([(ward.COMMITS,), (ward.TAKES,), (ward.COMMITS, ward.TAKES), ()]),
    objects=st.lists(SENT, max_size=3).map(tuple),
    job=MOSTLY(["done"] * 6 + [None, "ready", "leased", "dead"]),
)
SETTLED = st.just(ward.Analysis())
SERIES = st.builds(
    ward.OneSeries,
    state=MOSTLY(["complete"] * 6 + ["open"]),
    connected=MOSTLY([False] * 6 + [True]),
    generation=MOSTLY([1] * 6 + [2]),
    images=st.integers(1, 2),
    analyses=st.lists(st.one_of(SETTLED, SETTLED, ANALYSIS), max_size=2).map(tuple),
    job=MOSTLY(["done"] * 6 + [None, "ready", "leased", "dead"]),
)
STUDY = st.builds(
    ward.OneStudy,
    days=MOSTLY([0.01, 5.0, 29.9, 30.1, 400.0]),
    series=st.lists(SERIES, min_size=1, max_size=2).map(tuple),
)
NO_ROOM = 10**18


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


@settings(max_examples=60, deadline=None)
@given(st.lists(STUDY, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_nothing_undelivered_uncommitted_or_unanalysed_is_ever_deleted(
    studies: list[ward.OneStudy], by_age: bool, no_room: bool
) -> None:
    """R13: the sources of a result stay until it is delivered and committed, whatever the clock and the disk say."""
    with tempfile.TemporaryDirectory() as folder:
        site = ward.Ward(Path(folder), ward.settings(30.0 if by_age else None, NO_ROOM if no_room else 0))
        admitted = {site.admit(study): study for study in studies}
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

"""``python -m tests.bench``: reception beside peers, the way of a study, audit log and jobs."""

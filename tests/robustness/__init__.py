"""``python -m tests.robustness``: files of any kind through a running node; what became of each."""

"""Datasets, fitting and evaluation of the healthy-only detectors; writes model folders that ``models`` can register."""

"""Models that others trained, run as detectors: MONAI bundles, networks in one file, bare weights, programs.

Importing this package needs no torch; ``plugin`` is what discovery uses.
"""

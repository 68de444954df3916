"""The detector contract, discovery, and the built-in detectors. Importing this package loads no torch."""

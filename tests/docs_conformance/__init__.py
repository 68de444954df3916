"""Generator of the tables in docs/conformance.md (DICOM Conformance Statement, PS3.2) from the node's own code."""

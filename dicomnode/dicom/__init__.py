"""The words of DICOM that every room shares."""

"""dicomnode: a PACS-integrated DICOM AI node. Research software, not a medical device."""

__version__ = "0.1.0"

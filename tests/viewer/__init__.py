"""``make viewer-check``: the node's own results in a real viewer (OHIF over Orthanc), seen by a headless browser."""

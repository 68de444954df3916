"""The registry of model folders: safetensors weights, card, calibration; a wrong hash or a pickle is refused."""

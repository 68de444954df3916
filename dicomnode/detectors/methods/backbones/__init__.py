"""Frozen feature extractors: own networks with torchvision's names, weights as arrays from the operator."""

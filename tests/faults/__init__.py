"""Faults on purpose: a bare sender, shims that record or break a node's file operations, and judges of what is left."""

"""Hostile input for everything that reads what others wrote (docs/security.md, S20)."""

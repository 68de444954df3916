"""The papers' methods behind one interface: ``fit``, ``score``, ``map`` (docs/methods.md has the table)."""

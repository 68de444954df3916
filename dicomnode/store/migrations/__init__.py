"""Alembic migrations; the newest is the schema."""

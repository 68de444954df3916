"""Engine, tables, migrations and spool files. The database is the truth."""

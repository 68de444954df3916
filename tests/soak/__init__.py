"""A node under scanners and faults for half an hour."""

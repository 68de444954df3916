"""The long form of the reliability tests: many kills, power cuts and instances."""

"""De-identification: PS3.15 annex E over a data set, pseudonyms, vault, re-identification."""

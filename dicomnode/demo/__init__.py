"""The main job, played through on this machine: scanner, node and PACS on loopback."""

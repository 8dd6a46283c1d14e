"""How a new backup gets its copy: snapshots in chunks, a few at a time."""

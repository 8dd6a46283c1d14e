"""The callers and their history, and the probes after healing."""

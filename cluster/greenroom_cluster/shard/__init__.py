"""The replication core: pure, without I/O, clocks or randomness of its own."""

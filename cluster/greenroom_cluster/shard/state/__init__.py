"""What a replica holds: sessions and their indexes, kept replies, the log, and its memory accounts."""

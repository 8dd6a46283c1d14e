"""What a replica holds: sessions and their indexes, kept answers, the log, and the books of its memory."""

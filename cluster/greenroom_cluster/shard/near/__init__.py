"""The near cache at the primary: who holds which sessions, what waits for them, and for how long."""

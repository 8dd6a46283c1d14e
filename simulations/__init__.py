"""Fault injection in virtual time: the real core in a simulated world, judged after every step."""

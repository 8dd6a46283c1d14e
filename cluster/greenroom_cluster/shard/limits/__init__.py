"""Limits: which requests an actor takes, refuses or delays."""

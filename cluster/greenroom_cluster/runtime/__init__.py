"""Runs the pure parts on real sockets, clocks and processes."""

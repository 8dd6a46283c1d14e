"""Tokens as servers keep them: whose they are, until when, and who has tried to guess one.

`table` decides what a token in a hello means, `entries` how the file of tokens is written, `failures` who is
not let in for a while; they are pure. `files` reads and changes the file.
"""

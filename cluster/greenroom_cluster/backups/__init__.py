"""Backups of a cluster: a file with the sessions of every shard, and how they come back.

`files` is the file, `portable` the same sessions as lines of JSON, `copying` reads a cluster, `restoring`
creates sessions in one.
"""

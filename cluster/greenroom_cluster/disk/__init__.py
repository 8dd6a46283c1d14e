"""What an actor keeps on disk: batches of its log, which holds the snapshots of its shards too.

`entries` are what a batch holds, `replay` is what they amount to, and `batches` decides what may be believed
of what was read; these three are pure. `segment` is a file of batches, `journal` is the log in its segments,
and `directory` is who an actor slot's directory is.
"""

"""What an actor keeps on disk: batches of its log in numbered segments, and snapshots beside them.

`batches` is pure and decides what may be believed of what was read; `segment` is a file of batches;
`journal` is the directory of one actor slot.
"""

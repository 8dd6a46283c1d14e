"""The demo: a small shop whose sessions live in a cluster that is being killed."""

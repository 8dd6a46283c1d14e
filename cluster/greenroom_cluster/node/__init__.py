"""The decisions of a node's supervisor: a pure machine without processes, sockets or clocks."""

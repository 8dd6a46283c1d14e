"""What a node's supervisor decides: a pure machine, without processes, sockets and clocks."""

"""The runtime's input and output over real loopback sockets."""

"""What is decided about connections between the processes of a cluster, without sockets, clocks or tasks."""

"""Virtual time, machines, processes and TCP: what a cluster runs on, in one process."""

"""What it costs to keep the map in etcd, on a real member: recovery, and changes of the map."""

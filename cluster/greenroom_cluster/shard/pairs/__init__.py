"""Pairs of actors: leases, beacons and the replication stream, once per pair and not per shard."""

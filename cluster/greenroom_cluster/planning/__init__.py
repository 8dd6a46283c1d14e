"""The planner: the slots that each shard should have, and what shards wait for."""

"""Which slots each shard should have, and what shards wait for."""

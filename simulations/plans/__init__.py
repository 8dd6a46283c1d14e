"""A run as data: drawn from a seed, made shorter."""

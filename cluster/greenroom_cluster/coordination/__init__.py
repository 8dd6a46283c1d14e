"""Who keeps the cluster map and decides compare-and-set on it."""

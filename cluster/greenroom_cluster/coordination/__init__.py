"""The coordinator: it keeps the cluster map and decides changes of it by compare-and-set."""

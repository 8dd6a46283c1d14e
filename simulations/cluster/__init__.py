"""The processes of a cluster: shells around the real core, coordinator, node and dialog."""

"""The HTTP port of a node or coordinator, for operators: is it live, does it serve, and how does it do."""

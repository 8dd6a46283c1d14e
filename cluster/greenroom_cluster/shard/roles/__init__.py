"""The roles of a replica: what each accepts, what it does, and how one becomes another."""

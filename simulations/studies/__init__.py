"""What the real planner costs, and whether tables decide alike: no world is made for these."""

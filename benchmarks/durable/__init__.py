"""What keeping sessions on disk costs, how soon they are back, and what space they take."""

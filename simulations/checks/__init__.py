"""What must hold: after every step, and of the history at the end."""

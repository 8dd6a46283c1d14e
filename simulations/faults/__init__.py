"""What strikes a cluster, whom, and who mends it."""

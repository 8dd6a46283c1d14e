"""What one operation costs, stage by stage, measured on the parts as they are."""

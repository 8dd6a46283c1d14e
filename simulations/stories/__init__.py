"""Runs to look at: named scenarios, pictures, a plan in words."""

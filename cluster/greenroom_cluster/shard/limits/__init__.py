"""What an actor takes on, and what it refuses or puts off."""

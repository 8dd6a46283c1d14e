"""Server-side web sessions for async Python."""

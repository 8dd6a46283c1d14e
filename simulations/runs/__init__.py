"""One run, many runs, and what never happened in them."""

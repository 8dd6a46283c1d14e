"""Web sessions under concurrent requests, and what their middleware costs: ours beside those of others."""

"""What processes count, and how that is told to Prometheus."""

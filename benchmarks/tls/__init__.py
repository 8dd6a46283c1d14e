"""What mutual TLS costs: speed and memory of idle connections."""

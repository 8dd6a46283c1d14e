"""What servers and clients of Redis have to agree on."""

SENTINEL_NAME = "sessions"

"""What the contenders talk to: processes on loopback, started and stopped by the benchmark."""

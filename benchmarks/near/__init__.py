"""What a near cache saves who reads, and costs who writes."""

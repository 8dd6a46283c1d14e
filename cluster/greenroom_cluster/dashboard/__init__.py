"""What the operators' dashboard shows: decided from looks at the cluster and readings of metrics. Pure."""

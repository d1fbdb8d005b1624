"""What a network's latency is made of: kinds of operations, by tracing and by removal."""

"""A network's latency by kind of operation, by tracing and by removal."""

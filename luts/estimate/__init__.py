"""From samples to latencies, entries and intervals: pure statistics."""

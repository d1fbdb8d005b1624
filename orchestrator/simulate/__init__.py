"""A simulated device whose true latencies are known: for tests and for trying plans, never for a result."""

"""What `bench` can do, as functions with typed arguments and results: no parsing, no printing."""

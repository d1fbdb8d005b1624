"""Latency look-up tables: format, store, estimation and the latency model."""

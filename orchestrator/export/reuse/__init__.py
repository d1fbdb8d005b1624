"""Reuse of lowered parts: a network's program put together from fragments of other lowerings, byte for byte."""

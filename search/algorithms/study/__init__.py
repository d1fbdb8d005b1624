"""A search under way, and the strategies that may drive it."""

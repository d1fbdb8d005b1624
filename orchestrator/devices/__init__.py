"""Devices: what is attached, what a name means, and how to get an agent connection to it."""

"""What devices of every kind have in common: the interface, and phones by name."""

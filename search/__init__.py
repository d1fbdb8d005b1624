"""Search spaces, networks, weight-shared supernets and architecture search."""

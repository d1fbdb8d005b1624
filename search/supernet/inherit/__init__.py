"""What subnets inherit from a supernet: recalibrated batch norms and their accuracy."""

"""What an agent tells of the machine that it runs on, and of itself."""

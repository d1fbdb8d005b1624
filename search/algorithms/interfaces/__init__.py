"""What a user may write: objectives and strategies, known by name."""

"""What a budget allows of a space: its edges, and draws from what lies within."""

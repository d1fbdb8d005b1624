"""What is exported and how, and the exported files."""

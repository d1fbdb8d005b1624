"""What is to be measured, decided before any device is asked."""

"""The tests, and in `support` what several of their folders share."""

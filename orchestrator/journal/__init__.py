"""The append-only record of a measurement, and everything that is read back from it."""

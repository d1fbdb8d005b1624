"""Measuring on a device: batches and rounds, into a journal first."""

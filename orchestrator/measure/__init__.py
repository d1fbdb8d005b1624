"""Measurement: which models, in which batches and rounds, written to a journal first."""

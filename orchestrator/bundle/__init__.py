"""Bundles: a measurement as one file that a phone's agent runs without a computer, and the journal it leaves."""

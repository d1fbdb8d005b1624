"""Measurements behind docs/benchmarks.md, a section a module."""

"""Measurements behind docs/benchmarks.md: functions that return tables, by topic."""

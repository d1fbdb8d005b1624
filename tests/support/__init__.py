"""Helpers of the tests: worlds of known truth, fakes, and programs under test."""

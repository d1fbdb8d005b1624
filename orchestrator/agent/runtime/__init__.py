"""Runtimes that load and execute models for an agent."""

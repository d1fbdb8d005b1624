"""Suites: published networks that one command measures side by side."""

from orchestrator.suites.suite import Entry, Suite, list_suites, load_suite

__all__ = ["Entry", "Suite", "list_suites", "load_suite"]

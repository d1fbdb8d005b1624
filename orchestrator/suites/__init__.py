"""Suites: published networks that one command measures side by side."""

from orchestrator.suites.suite import Suite, SuiteEntry, list_suites, load_suite

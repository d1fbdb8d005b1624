"""Objectives in many processes, each architecture evaluated once."""

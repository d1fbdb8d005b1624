"""Tests with many parameters, of which `make test` runs some and `make slow` the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(every: Iterable[Any], kept: Iterable[Any]) -> list[Any]:
    """Parameters of a test: all of `every`, those that are not in `kept` marked as slow."""
    every, kept = list(every), list(kept)
    assert kept
    assert all(value in every for value in kept), "one that is kept is not among them"
    return [
        value
        if value in kept
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in every
    ]

"""Sweeps of which every run makes a part, and `make sweeps` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def rest_soaks(every: Iterable[Any], kept: Iterable[Any]) -> list[Any]:
    """Parameters of a test: all of `every`, those that are not in `kept` for `make sweeps` alone."""
    every, kept = list(every), list(kept)
    assert kept
    assert all(value in every for value in kept), "one that is kept is not among them"
    return [
        value
        if value in kept
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.soak)
        for value in every
    ]

"""How many classes a block's key names."""

from __future__ import annotations

import re

_CLASSES = re.compile(r"classes=([0-9]+)")


def classes_of(key: str) -> int | None:
    """Classes of a classifier; None of other blocks."""
    match = _CLASSES.search(key)
    return int(match[1]) if match else None


def without_classes(key: str) -> str:
    """What classifiers that differ in the number of classes alone have in common."""
    return _CLASSES.sub("", key)

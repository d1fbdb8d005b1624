"""Cores as Linux lists them: `4-8`, `0,2-3`."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_CORE = 4095

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


def parse_cores(text: str) -> tuple[int, ...]:
    """The cores of a list, in rising order. Raises ValueError, with what is wrong, where it is not one."""
    cores: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= MAX_CORE:
            raise ValueError(f"{text[:64]!r} is not a list of cores such as 4-8 or 0,2-3")
        cores.update(range(first, last + 1))
    return tuple(sorted(cores))


def core_list(cores: Iterable[int]) -> str:
    """The list of some cores; empty where there are none."""
    ranges: list[list[int]] = []
    for core in sorted(set(cores)):
        if ranges and ranges[-1][1] == core - 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)

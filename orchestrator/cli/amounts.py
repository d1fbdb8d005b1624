"""Amounts as people write them: a number with a unit, which is asked for where two could be meant."""

from __future__ import annotations

import re
from collections.abc import Mapping

from luts.format.errors import UsageError

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {prefix + unit: factor for prefix, factor in _PREFIXES.items() for unit in ("", "B")} | {
    f"{prefix}iB": 1024.0 ** (power + 1) for power, prefix in enumerate("KMG")
}


def parse_budget(text: str, option: str = "--budget") -> float:
    """Seconds of `90s`, `15m` or `2h`."""
    return _amount(text, _SECONDS, option, "a time such as 90s, 15m or 2h", asked=("s", "m", "h"))


def parse_latency(text: str, option: str = "--latency") -> float:
    """Milliseconds of `10ms` or `150us`."""
    return _amount(text, _MILLISECONDS, option, "a latency such as 10ms or 150us", asked=("ms", "us", "%"))


def parse_percent(text: str, option: str) -> float:
    """Percent of `1.5%` or `1.5`: where it is taken nothing else can be meant."""
    return _amount(text, {"%": 1.0, "": 1.0}, option, "a percentage such as 1.5%", zero=True)


def parse_count(text: str, option: str) -> float:
    """A number with an optional K, M or G, e.g. `1.8M`."""
    return _amount(text, _PREFIXES, option, "a number such as 1.8M")


def parse_bytes(text: str, option: str, *, zero: bool = False) -> float:
    """Bytes of `10KB`, `10KiB` or `10K`: K is 1000, Ki is 1024."""
    return _amount(text, _BYTES, option, "a size such as 10KB or 2MiB", zero=zero)


def _amount(
    text: str,
    units: Mapping[str, float],
    option: str,
    expected: str,
    *,
    asked: tuple[str, ...] = (),
    zero: bool = False,
) -> float:
    """What a number with one of the units is in the unit of factor 1.

    Raises:
        UsageError: not a number, none of the units, or 0 where that is not `zero`; a number alone is asked which
            of the units in `asked` it has.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([^\W\d]*%?)", text.strip())
    wrong = UsageError(f"{option} {text!r}: expected {expected}")
    if match is None or (float(match[1]) == 0 and not zero):
        raise wrong
    number, unit = match[1], match[2].lower()
    known = {name.lower(): factor for name, factor in units.items()}
    if unit in known:
        return float(number) * known[unit]
    if unit or not asked:
        raise wrong
    which = ", ".join(f"{number}{name}" for name in asked[:-1])
    raise UsageError(f"{option} {text!r} has no unit; is it {which} or {number}{asked[-1]}?")

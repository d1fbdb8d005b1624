"""Values of options from their text: amounts with a unit, names and lists. No unit is ever guessed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from luts.format.errors import UsageError
from luts.format.schema import NAME_PATTERN
from search.spaces.space import MAX_CLASSES

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_PREFIXES = {"K": 1e3, "M": 1e6, "G": 1e9}
_BYTES = (
    {"B": 1.0}
    | {prefix + unit: factor for prefix, factor in _PREFIXES.items() for unit in ("", "B")}
    | {f"{prefix}iB": 1024.0 ** (power + 1) for power, prefix in enumerate("KMG")}
)


MAX_SIDE = 1 << 16
"""Far more pixels than a side has; spaces and networks say which sides they take."""

_SMALL_COUNT = 1000
"""Smallest plausible count of parameters, MACs or bytes: a smaller number lacks its unit."""

_SMALL_PERCENT = 0.2
"""No prediction gets so narrow: a number below may be meant as a fraction."""


def parse_budget(text: str, option: str = "--budget") -> float:
    """Return the seconds of `90s`, `15m` or `2h`."""
    return _amount(text, _SECONDS, option, "a time such as 90s, 15m or 2h", _each("s", "m", "h"))


def parse_latency(text: str, option: str = "--latency") -> float:
    """Return the milliseconds of `10ms` or `150us`."""
    return _amount(text, _MILLISECONDS, option, "a latency such as 10ms or 150us", _each("ms", "us", "%"))


def parse_pace(text: str | None, option: str = "--pace") -> int:
    """Return the microseconds between calls at `30/s`; 0 if `text` is None."""
    if text is None:
        return 0
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*/\s*s", text.strip())
    calls = float(match[1]) if match else 0.0
    if not 1 <= calls <= 1000:
        raise UsageError(
            f"{option} {text[:40]!r}: expected 1/s to 1000/s calls a second, such as 30/s",
            code="invalid_value",
        )
    return round(1e6 / calls)


def parse_percent(text: str, option: str) -> float:
    """Return the percentage of `1.5%` or `1.5`; refuse `0.015`, which may be a fraction."""
    return _amount(
        text,
        {"%": 1.0},
        option,
        "a percentage such as 1.5%",
        lambda number: (f"{number}%", f"{100 * float(number):g}%"),
        lambda value: value == 0 or value >= _SMALL_PERCENT,
        zero=True,
    )


def parse_fraction(text: str, option: str) -> float:
    """Return the fraction of `95%` or `0.95`, which are the same number; refuse `95` without a unit."""
    fraction = _amount(
        text,
        {"%": 0.01},
        option,
        "a fraction such as 95% or 0.95",
        lambda number: (f"{number}%", f"{float(number) / 100:g}"),
        lambda value: value <= 1,
        zero=True,
    )
    return round(fraction, 12)


def parse_count(text: str, option: str) -> int:
    """Return a number with an optional K, M or G, e.g. `1.8M`; refuse `2`, which may lack its unit."""
    return int(_amount(text, _PREFIXES, option, "a number such as 1.8M", _each("K", "M", "G"), _is_large))


def parse_bytes(text: str, option: str, *, zero: bool = False) -> int:
    """Return the bytes of `10KB`, `10KiB` or `10K`: K is 1000, Ki is 1024; refuse `10` without a unit."""
    meanings = _each("B", "KB", "MB")
    return int(_amount(text, _BYTES, option, "a size such as 10KB or 2MiB", meanings, _is_large, zero=zero))


def _is_large(value: float) -> bool:
    return value == 0 or value >= _SMALL_COUNT


def _each(*units: str) -> Callable[[str], Sequence[str]]:
    return lambda number: [number + unit for unit in units]


def _amount(
    text: str,
    units: Mapping[str, float],
    option: str,
    expected: str,
    meanings: Callable[[str], Sequence[str]],
    plain: Callable[[float], bool] = lambda _: False,
    *,
    zero: bool = False,
) -> float:
    """Convert a number with a unit to the unit of factor 1; a number without one must satisfy `plain`.

    Raises:
        UsageError: Not a number, an unknown unit, or 0 although `zero` is False; or a number without a unit,
            whose possible `meanings` the message lists.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([^\W\d]*%?)", text.strip())
    wrong = UsageError(f"{option} {text!r}: expected {expected}", code="invalid_value")
    if match is None or (float(match[1]) == 0 and not zero):
        raise wrong
    number, unit = match[1], match[2].lower()
    known = {name.lower(): factor for name, factor in units.items()}
    if unit:
        if unit not in known:
            raise wrong
        return float(number) * known[unit]
    if plain(float(number)):
        return float(number)
    *others, last = meanings(number)
    raise UsageError(
        f"{option} {text!r} has no unit; is it {', '.join(others)} or {last}?", code="missing_unit"
    )


def parse_name(text: str, option: str = "--name", example: str = "pixel8-work") -> str:
    """Return `text` if it can be a device's name or another part of a LUT's name."""
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise UsageError(
            f"{option} {text!r}: expected small letters, digits, dots and dashes, such as {example}",
            code="invalid_value",
        )
    return text


def parse_deployment_target(text: str, option: str = "--ios") -> str:
    """Return `iOS17` for `17` or `iOS17`; the exporter checks whether it knows that version."""
    match = re.fullmatch(r"(?:ios)?([0-9]{1,2})", text.lower())
    if match is None:
        raise UsageError(f"{option} {text!r}: expected a version such as 17", code="invalid_value")
    return f"iOS{match[1]}"


def parse_numbers(
    text: str, option: str, expected: str, ends: tuple[int, int], code: str = "invalid_value"
) -> tuple[int, ...]:
    """Return the numbers of `1,8,32` in their order; UsageError says what is expected of those beyond the ends."""
    numbers = tuple(int(part) if part.strip().isdecimal() else -1 for part in text.split(","))
    if not all(ends[0] <= number <= ends[1] for number in numbers):
        raise UsageError(f"{option} {text[:40]!r}: expected {expected}", code=code)
    return numbers


def parse_heads(text: str | None, option: str = "--heads") -> tuple[int, ...]:
    """Return the numbers of classes in `10,100,1000`; empty if `text` is None."""
    expected = "numbers of classes, e.g. 10,100,1000"
    return () if text is None else parse_numbers(text, option, expected, (1, MAX_CLASSES))


def parse_resolutions(text: str | None, option: str = "--resolution") -> tuple[int, ...] | None:
    """Return `256` or `192,256` as sorted numbers; None if `text` is None."""
    if text is None:
        return None
    return tuple(sorted(set(parse_numbers(text, option, "numbers, e.g. 256 or 192,256", (0, MAX_SIDE)))))

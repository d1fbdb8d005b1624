"""Two LUTs side by side: comparing never measures."""

from __future__ import annotations

from dataclasses import dataclass

from luts.lut import Lut


@dataclass(frozen=True)
class EntryDiff:
    """One key in both: milliseconds, their ratio (None where the first is 0), whether the 95 % intervals
    meet."""

    key: str
    first_ms: float
    second_ms: float
    ratio: float | None
    overlap: bool


@dataclass(frozen=True)
class LutDiff:
    """`entries` in order of key; `overlap_share` of them (None without common keys) agree within intervals.

    `reference_ratio` is the second's reference latency over the first's, None unless both have the same one:
    it tells a faster device (all entries move together) from a different cost of single blocks.
    """

    entries: tuple[EntryDiff, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    overlap_share: float | None
    reference_ratio: float | None


def diff_luts(first: Lut, second: Lut) -> LutDiff:
    """Entries of `second` against those of `first`."""
    old = {entry.key: entry for entry in first.entries}
    new = {entry.key: entry for entry in second.entries}
    common = sorted(old.keys() & new.keys())
    entries = tuple(
        EntryDiff(
            key=key,
            first_ms=old[key].ms,
            second_ms=new[key].ms,
            ratio=new[key].ms / old[key].ms if old[key].ms > 0 else None,
            overlap=old[key].ci_low <= new[key].ci_high and new[key].ci_low <= old[key].ci_high,
        )
        for key in common
    )
    same_reference = first.meta.reference_id == second.meta.reference_id
    return LutDiff(
        entries=entries,
        only_first=tuple(sorted(old.keys() - new.keys())),
        only_second=tuple(sorted(new.keys() - old.keys())),
        overlap_share=sum(entry.overlap for entry in entries) / len(entries) if entries else None,
        reference_ratio=second.meta.reference_ms / first.meta.reference_ms if same_reference else None,
    )

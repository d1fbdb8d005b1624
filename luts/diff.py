"""Compare LUTs; comparing never measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luts.estimate.statistics import kendall_tau
from luts.format.errors import UsageError
from luts.format.lut import Lut


@dataclass(frozen=True)
class EntryDiff:
    """One block that all LUTs have; tuples are in the order of the LUTs.

    Attributes:
        ratios: To the first LUT's milliseconds, so 1 for itself; None where those are 0.
        ranks: 1 for the costliest of the common blocks; equal ones share the lower number.
        overlap: Whether all 95 % intervals have a value in common.
    """

    key: str
    kind: str
    ms: tuple[float, ...]
    ratios: tuple[float | None, ...]
    ranks: tuple[int, ...]
    overlap: bool


@dataclass(frozen=True)
class KindDiff:
    """The common blocks of one kind: how many, their milliseconds summed, and these over the first LUT's."""

    kind: str
    blocks: int
    ms: tuple[float, ...]
    ratios: tuple[float | None, ...]


@dataclass(frozen=True)
class LutDiff:
    """Common entries of LUTs and their differences; tuples of figures are in the order of the LUTs.

    Attributes:
        missing: For each LUT the blocks that it has and another lacks.
        overlap_share: Fraction of common blocks that agree within intervals; None without common blocks.
        reference_ratios: Reference latencies over the first LUT's, None unless both have the same reference:
            they distinguish a faster device (all entries move together) from different costs of single
            blocks.
        rank_correlations: Kendall's tau of the common blocks' milliseconds with the first LUT's.
    """

    entries: tuple[EntryDiff, ...]
    kinds: tuple[KindDiff, ...]
    missing: tuple[tuple[str, ...], ...]
    overlap_share: float | None
    reference_ratios: tuple[float | None, ...]
    rank_correlations: tuple[float | None, ...]


def diff_luts(*luts: Lut) -> LutDiff:
    """Compare the entries of all LUTs with those of the first. Raises UsageError: fewer than two."""
    if len(luts) < 2:
        raise UsageError("a comparison needs two or more LUTs", code="too_few_luts")
    tables = [{entry.key: entry for entry in lut.entries} for lut in luts]
    common = sorted(set.intersection(*(set(table) for table in tables)))
    costs = [[table[key].ms for key in common] for table in tables]
    ranks = [_ranks(column) for column in costs]
    entries = []
    for row, key in enumerate(common):
        rows = [table[key] for table in tables]
        ms = tuple(entry.ms for entry in rows)
        overlap = max(entry.ci_low for entry in rows) <= min(entry.ci_high for entry in rows)
        place = tuple(column[row] for column in ranks)
        entries.append(EntryDiff(key, rows[0].kind, ms, _ratios(ms), place, overlap))
    references = [
        lut.meta.reference_ms if lut.meta.reference_id == luts[0].meta.reference_id else None for lut in luts
    ]
    return LutDiff(
        entries=tuple(entries),
        kinds=_kinds(entries),
        missing=tuple(tuple(sorted(table.keys() - set(common))) for table in tables),
        overlap_share=sum(entry.overlap for entry in entries) / len(entries) if entries else None,
        reference_ratios=_ratios(references),
        rank_correlations=tuple(kendall_tau(costs[0], column) for column in costs),
    )


def _kinds(entries: Sequence[EntryDiff]) -> tuple[KindDiff, ...]:
    kinds = []
    for kind in sorted({entry.kind for entry in entries}):
        rows = [entry.ms for entry in entries if entry.kind == kind]
        ms = tuple(sum(column) for column in zip(*rows, strict=True))
        kinds.append(KindDiff(kind, len(rows), ms, _ratios(ms)))
    return tuple(kinds)


def _ratios(values: Sequence[float | None]) -> tuple[float | None, ...]:
    first = values[0]
    return tuple(value / first if value is not None and first else None for value in values)


def _ranks(costs: Sequence[float]) -> list[int]:
    return [1 + sum(other > cost for other in costs) for cost in costs]

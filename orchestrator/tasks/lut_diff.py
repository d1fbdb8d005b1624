"""Two or more LUTs side by side: by block, by kind of block, or by rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from luts.diff import EntryDiff, KindDiff, LutDiff, diff_luts
from luts.format.errors import UsageError, shorten
from luts.format.schema import LutMeta
from luts.format.store import LutRef
from luts.format.table import Column, Table
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.progress import Progress, silent


class DiffView(StrEnum):
    """Rows of a comparison of LUTs, and their order."""

    block = "block"
    kind = "kind"
    rank = "rank"


@dataclass(frozen=True, kw_only=True)
class DiffCommand(StoreOptions):
    """Compare two or more LUTs: by block, by kind of block, or by rank."""

    lut: tuple[str, ...] = argument(REQUIRED, "Two or more LUTs; ratios are to the first.", metavar="LUT")
    by: DiffView = option(
        DiffView.block, "Rows: blocks, kinds of blocks, or blocks ordered by difference in rank."
    )


@dataclass(frozen=True)
class LutComparison:
    """Two or more LUTs side by side."""

    diff: LutDiff
    refs: tuple[LutRef, ...]
    metas: tuple[LutMeta, ...]
    by: DiffView

    @property
    def names(self) -> list[str]:
        """Short names; simulated LUTs are marked."""
        names = zip(short_names(self.refs), self.metas, strict=True)
        return [name + " (simulated)" * (meta.measured == "simulated") for name, meta in names]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table, a cell for each LUT and figure."""
        if self.by is DiffView.kind:
            return [_diff_row(row, self.names) for row in self.diff.kinds]
        entries = list(self.diff.entries)
        if self.by is DiffView.rank:
            entries.sort(key=lambda entry: (min(entry.ranks) - max(entry.ranks), entry.ranks))
        return [_diff_row(row, self.names) for row in entries]

    def to_dict(self) -> dict[str, Any]:
        """Return the LUTs and all their differences, which do not depend on `by`."""
        return {"luts": [str(ref) for ref in self.refs], "names": self.names, **asdict(self.diff)}

    def report(self) -> Iterator[Table | str]:
        """Yield the table, and what is known of each LUT."""
        names = self.names
        yield Table("", self._columns(names), self.rows)
        yield (
            f"{len(self.diff.entries)} common entries, intervals overlap for "
            f"{100 * (self.diff.overlap_share or 0):.1f} %"
        )
        for place, (ref, name) in enumerate(zip(self.refs, names, strict=True)):
            line = f"{name}: {ref}"
            if place:
                ratio, tau = self.diff.reference_ratios[place], self.diff.rank_correlations[place]
                line += f"; reference latency over that of {names[0]}: " + (
                    "another model" if ratio is None else f"{ratio:.3f}"
                )
                line += "; ranks: " + ("all equal" if tau is None else f"Kendall tau {tau:.3f}")
            if self.diff.missing[place]:
                line += f"; not in all others: {shorten(self.diff.missing[place])}"
            yield line
        pairs = list(zip(names, self.metas, strict=True))
        fixed = [name for name, meta in pairs if meta.fixed_performance]
        if fixed and len(fixed) < len(pairs):
            yield (
                "measured in fixed performance mode, with other clocks, unlike the others: "
                + ", ".join(fixed)
            )
        if simulated := [name for name, meta in pairs if meta.measured == "simulated"]:
            yield f"SIMULATED: not measured on any device: {', '.join(simulated)}"

    def _columns(self, names: Sequence[str]) -> list[Column]:
        first, *others = names
        ms = [Column(f"ms {name}", f"{name} ms", 4) for name in names]
        ratios = [Column(f"ratio {name}", f"{name} / {first}", 3) for name in others]
        if self.by is DiffView.kind:
            return [Column("kind", "kind"), Column("blocks", "blocks"), *ms, *ratios]
        if self.by is DiffView.rank:
            return [Column("key", "block"), *(Column(f"rank {name}", f"{name} rank") for name in names), *ms]
        return [Column("key", "block"), *ms, *ratios, Column("overlap", "intervals overlap")]


def compare_luts(options: DiffCommand, progress: Progress = silent) -> LutComparison:
    """Compare two or more LUTs by block and by kind.

    Raises:
        UsageError: fewer than two LUTs, one that is unknown or given twice, or no block is in all of them.
        InvalidArtifactError: one of them is damaged.
    """
    store = options.open_store(progress)
    refs = tuple(store.resolve(name) for name in options.lut)
    tables = [store.load(ref) for ref in refs]
    diff = diff_luts(*tables)
    if not diff.entries:
        spaces = ", ".join(f"{ref} of {table.meta.space}" for ref, table in zip(refs, tables, strict=True))
        raise UsageError(
            f"no block is in all of them ({spaces}); compare LUTs of one space and resolution",
            code="no_common_block",
        )
    short_names(refs)
    return LutComparison(diff, refs, tuple(table.meta for table in tables), options.by)


def short_names(refs: Sequence[LutRef]) -> list[str]:
    """Return the parts in which the LUTs' names differ, variants without the words that all begin with.

    Raises:
        UsageError: a LUT is given twice.
    """
    if len({ref.path.resolve() for ref in refs}) < len(refs):
        raise UsageError("a LUT is given twice: " + shorten([str(ref) for ref in refs]), code="duplicate_lut")
    devices, spaces, variants, versions = zip(*(ref.parts for ref in refs), strict=True)
    parts = devices, spaces, _without_common(variants), versions
    differing = [part for part in parts if len(set(part)) > 1]
    if not differing:
        return [str(ref.path) for ref in refs]
    return ["/".join(name) for name in zip(*differing, strict=True)]


def _without_common(names: Sequence[str]) -> list[str]:
    words = [name.split("-") for name in names]
    while min(map(len, words)) > 1 and len({name[0] for name in words}) == 1:
        words = [name[1:] for name in words]
    return ["-".join(name) for name in words]


def _diff_row(row: EntryDiff | KindDiff, names: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, tuple):
            cells |= {f"{_FIGURES[name]} {lut}": cell for lut, cell in zip(names, value, strict=True)}
        else:
            cells[name] = value
    return cells


_FIGURES = {"ms": "ms", "ratios": "ratio", "ranks": "rank"}

"""`bench lut diff`: compare LUTs by block, by kind and by rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.diff import EntryDiff, KindDiff, LutDiff, diff_luts
from luts.format.errors import UsageError, shorten
from luts.format.lut import Lut
from luts.format.store import LutRef
from luts.format.table import Column
from orchestrator.cli.lut_store import LutsOption, open_store
from orchestrator.cli.output import TABLES, JsonOption, emit_json, emit_rows, output_files, tell, write_table


class View(StrEnum):
    """Rows of the table, and their order."""

    block = "block"
    kind = "kind"
    rank = "rank"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("diff")(diff_command)


def diff_command(
    lut: Annotated[list[str], typer.Argument(help="Two or more LUTs; ratios are to the first.")],
    by: Annotated[
        View,
        typer.Option(help="Rows: blocks, kinds of blocks, or blocks ordered by difference in rank."),
    ] = View.block,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write the rows to a .csv or everything to a .json file."),
    ] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two or more LUTs: by block, by kind of block, or by rank."""
    files = output_files(output, TABLES)
    store = open_store(luts)
    refs = [store.resolve(name) for name in lut]
    tables = [store.load(ref) for ref in refs]
    diff = diff_luts(*tables)
    if not diff.entries:
        spaces = ", ".join(f"{ref} of {table.meta.space}" for ref, table in zip(refs, tables, strict=True))
        raise UsageError(
            f"no block is in all of them ({spaces}); compare LUTs of one space and resolution",
            code="no_common_block",
        )
    names = [
        name + " (simulated)" * (table.meta.measured == "simulated")
        for name, table in zip(short_names(refs), tables, strict=True)
    ]
    rows = [_row(row, names) for row in _ordered(diff, by)]
    document = {"luts": [str(ref) for ref in refs], "names": names, **asdict(diff)}
    for file in files:
        write_table(file, document | {"rows": rows} if file.suffix == ".csv" else document, "rows")
    if as_json:
        emit_json(document)
        return
    emit_rows("", _columns(names, by), rows, False)
    _print_notes(diff, refs, tables, names)


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


def _ordered(diff: LutDiff, by: View) -> Sequence[EntryDiff | KindDiff]:
    if by is View.kind:
        return diff.kinds
    if by is View.rank:
        return sorted(diff.entries, key=lambda entry: (min(entry.ranks) - max(entry.ranks), entry.ranks))
    return diff.entries


def _row(row: EntryDiff | KindDiff, names: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, tuple):
            cells |= {f"{_FIGURES[name]} {lut}": cell for lut, cell in zip(names, value, strict=True)}
        else:
            cells[name] = value
    return cells


_FIGURES = {"ms": "ms", "ratios": "ratio", "ranks": "rank"}


def _columns(names: Sequence[str], by: View) -> list[Column]:
    first, *others = names
    ms = [Column(f"ms {name}", f"{name} ms", 4) for name in names]
    ratios = [Column(f"ratio {name}", f"{name} / {first}", 3) for name in others]
    if by is View.kind:
        return [Column("kind", "kind"), Column("blocks", "blocks"), *ms, *ratios]
    if by is View.rank:
        return [Column("key", "block"), *(Column(f"rank {name}", f"{name} rank") for name in names), *ms]
    return [Column("key", "block"), *ms, *ratios, Column("overlap", "intervals overlap")]


def _print_notes(diff: LutDiff, refs: Sequence[LutRef], tables: Sequence[Lut], names: Sequence[str]) -> None:
    tell(f"{len(diff.entries)} common entries, intervals overlap for {100 * (diff.overlap_share or 0):.1f} %")
    for place, (ref, name) in enumerate(zip(refs, names, strict=True)):
        line = f"{name}: {ref}"
        if place:
            ratio, tau = diff.reference_ratios[place], diff.rank_correlations[place]
            line += f"; reference latency over that of {names[0]}: " + (
                "another model" if ratio is None else f"{ratio:.3f}"
            )
            line += "; ranks: " + ("all equal" if tau is None else f"Kendall tau {tau:.3f}")
        if diff.missing[place]:
            line += f"; not in all others: {shorten(diff.missing[place])}"
        tell(line)
    fixed = [name for name, table in zip(names, tables, strict=True) if table.meta.fixed_performance]
    if fixed and len(fixed) < len(tables):
        tell(
            f"measured in fixed performance mode, which slows a phone down, unlike the others: {', '.join(fixed)}"
        )
    simulated = [
        name for name, table in zip(names, tables, strict=True) if table.meta.measured == "simulated"
    ]
    if simulated:
        tell(f"SIMULATED: not measured on any device: {', '.join(simulated)}")

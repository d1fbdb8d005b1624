"""A section of a report: a picture, what it says in a sentence or two, and the table of its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.figure import Figure

from orchestrator.report.draw import NARROW_PX, WIDE_PX, svg

MAX_TABLE_ROWS = 1000
"""Longer tables would make the page slow to open; `bench lut show` has the whole LUT."""


@dataclass(frozen=True)
class Table:
    """Cells as text; columns in `text_columns` (by number) are not numbers. `rest` rows were left out."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    rest: int = 0


@dataclass(frozen=True)
class Section:
    """`wide` and `narrow` are the same picture for two widths of screen."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    table: Table


def make_section(name: str, title: str, caption: str, draw: Callable[[int], Figure], table: Table) -> Section:
    """A section whose picture `draw` makes for a width in pixels."""
    caption = caption.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")
    wide, narrow = (
        svg(draw(width_px), f"{name}-{suffix}", title, caption)
        for suffix, width_px in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
    return Section(name, title, caption, wide, narrow, table)


def make_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], text_columns: tuple[int, ...] = (0,)
) -> Table:
    """The first `MAX_TABLE_ROWS` rows."""
    kept = tuple(tuple(row) for row in rows[:MAX_TABLE_ROWS])
    return Table(tuple(headers), kept, text_columns, len(rows) - len(kept))

"""Tables that fit a terminal: which columns are shown, and how wide each is. Numbers are never broken."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table

from luts.format.table import Column

GAP = 2
"""Spaces between columns."""
LEAST_TEXT, LEAST_WORD = 12, 24
"""Smallest widths that text is folded to: in general, and if a word would be broken."""

_PIECE = re.compile(r"[^\s,/)]*[\s,/)]*")
"""A line may end between two of these."""
_KEY = re.compile(r"(?P<kind>[\w.]+)\((?P<choices>[^)]*)\)(?P<place>.*)")


@dataclass(frozen=True)
class _Shown:
    """A column with its cells and the width that it gets."""

    column: Column
    cells: tuple[str, ...]
    numeric: bool
    width: int = 0

    @classmethod
    def of(cls, column: Column, rows: Sequence[Mapping[str, Any]]) -> _Shown:
        values = [row.get(column.name) for row in rows]
        numeric = any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return cls(column, tuple(column.text(value) for value in values), numeric)

    def wide(self, titles_fold: bool) -> _Shown:
        """Return the column as wide as its cells and its title, or the title's longest word if titles fold."""
        words = self.column.title.split() if titles_fold else [self.column.title]
        return replace(self, width=max(map(cell_len, (*self.cells, *words, "-"))))

    @property
    def least(self) -> int:
        """Smallest width that text may be folded to."""
        words = (piece.rstrip() for cell in self.cells for piece in _PIECE.findall(cell))
        return max(LEAST_TEXT, min(LEAST_WORD, max(map(cell_len, words), default=0)))

    @property
    def folded(self) -> tuple[str, ...]:
        return self.cells if self.numeric else tuple(_folded(cell, self.width) for cell in self.cells)


def fitting(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], width: int
) -> tuple[list[_Shown], list[str]]:
    """Return the columns that fit, and notes on what they leave out.

    Titles are folded first, then keys shortened, then spare columns left out, then text is folded; after that,
    columns are left out from the right.
    """
    shown = [_Shown.of(column, rows).wide(False) for column in columns]
    notes: list[str] = []
    if _width(shown) > width:
        shown = [column.wide(True) for column in shown]
    if _width(shown) > width:
        shown, notes = _with_short_keys(shown)
    every, shown = shown, [column for column in shown if not column.column.spare]
    for column in sorted(every, key=lambda column: column.column.spare):
        more = [c for c in every if c in shown or c is column]
        if _width(more) <= width:
            shown = more
    shown = _folding_text(shown, width)
    while _width(shown) > width and len(shown) > 1:
        shown.pop()
    there = {column.column for column in shown}
    if left_out := [column.column.title for column in every if column.column not in there]:
        notes.append(f"on a wider terminal, or with --json: {', '.join(left_out)}")
    return shown, notes


def table_of(title: str, shown: Sequence[_Shown]) -> Table:
    """Draw the table, numbers to the right, text to the left."""
    drawn = Table(
        title=title or None,
        title_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - 1, 0, 0),
    )
    for column in shown:
        drawn.add_column(
            column.column.title,
            justify="right" if column.numeric else "left",
            width=column.width,
            overflow="fold",
        )
    for row in zip(*(column.folded for column in shown), strict=True):
        drawn.add_row(*row)
    return drawn


def short_keys(keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return keys without the parameters that all of a kind share, and a line for each kind that names them."""
    choices: dict[str, list[list[str]]] = defaultdict(list)
    matches = {key: match for key in keys if (match := _KEY.fullmatch(key))}
    for match in matches.values():
        choices[match["kind"]].append(match["choices"].split(","))
    shared = {
        kind: [choice for choice in lists[0] if all(choice in other for other in lists)]
        for kind, lists in choices.items()
        if len(lists) > 1
    }
    short = {}
    for key, match in matches.items():
        own = [c for c in match["choices"].split(",") if c not in shared.get(match["kind"], ())]
        short[key] = f"{match['kind']}({','.join(own)}){match['place']}"
    return short, [f"every {kind}: {', '.join(same)}" for kind, same in sorted(shared.items()) if same]


def _width(shown: Sequence[_Shown]) -> int:
    return sum(column.width for column in shown) + GAP * (len(shown) - 1)


def _with_short_keys(shown: Sequence[_Shown]) -> tuple[list[_Shown], list[str]]:
    notes: list[str] = []
    columns = []
    for column in shown:
        if column.column.key:
            short, shared = short_keys(column.cells)
            column = replace(column, cells=tuple(short.get(cell, cell) for cell in column.cells)).wide(True)
            notes += shared
        columns.append(column)
    return columns, notes


def _folding_text(shown: Sequence[_Shown], width: int) -> list[_Shown]:
    """Narrow the widest column of text repeatedly until all fit."""
    columns = list(shown)
    while _width(columns) > width:
        text = [i for i, c in enumerate(columns) if not c.numeric and c.width > c.least]
        if not text:
            break
        widest = max(text, key=lambda i: columns[i].width)
        columns[widest] = replace(columns[widest], width=columns[widest].width - 1)
    return columns


def _folded(text: str, width: int) -> str:
    """Break text into lines, after spaces, commas, slashes and brackets if possible."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if cell_len((lines[-1] + piece).rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines if line)

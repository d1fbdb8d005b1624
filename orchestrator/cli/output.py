"""Tables for people, JSON for programs, and files, from the same results.

Of a table the columns are shown that fit the terminal; numbers are never broken.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as Grid

from luts.format.errors import UsageError
from luts.format.files import check_writable
from luts.format.table import Column, DrawnResult, Facts, Result, Table, write_table
from orchestrator.devices.common.device import refuse_question
from orchestrator.tasks.options import OUTPUT

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


def table_of(title: str, shown: Sequence[_Shown]) -> Grid:
    """Draw the table, numbers to the right, text to the left."""
    drawn = Grid(
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


JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel=OUTPUT)
]

PLAIN_WIDTH = 200
"""Width of tables in a file or a pipe, so that no key is broken."""

DETAIL_SPARE = 4
"""Columns from this `Column.spare` on are details, which a file or a pipe gets with --json only."""

_out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False)
_err = Console(stderr=True)


def output_option(suffixes: Sequence[str]) -> Any:
    """Return the annotation of `--output` for files with these suffixes."""
    how = typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        rich_help_panel=OUTPUT,
        help=f"Also write {', '.join(suffixes[:-1])} or {suffixes[-1]}; repeatable.",
    )
    return Annotated[list[Path] | None, how]


TABLES = (".json", ".csv")
PICTURES = (".png", ".svg")

OutputFilesOption = output_option(TABLES)


def output_files(given: Sequence[Path] | None, suffixes: Collection[str]) -> list[Path]:
    """Return the files of `--output` without duplicates, before anything is computed.

    Raises:
        UsageError: a file with another suffix, or the standard output.
        StorageError: a file can't be written there.
    """
    files = list(dict.fromkeys(given or ()))
    for file in files:
        if str(file) == "-":
            raise UsageError("--output -: only --json writes to the standard output", code="output_to_stdout")
        if file.suffix not in suffixes:
            raise UsageError(
                f"--output {file}: expected a name that ends in {' or '.join(suffixes)}", code="output_suffix"
            )
        check_writable(file)
    return files


def deliver(result: Result, files: Sequence[Path], as_json: bool, rows: str = "") -> None:
    """Write a task's result to tables and pictures, and print it; `rows` as in `write_table`.

    Raises:
        StorageError: a file can't be written.
    """
    document = result.to_dict()
    tables = [file for file in files if file.suffix in TABLES]
    for path in tables:
        write_table(path, document, rows)
    pictures: Sequence[Path] = ()
    if isinstance(result, DrawnResult):
        pictures = [file for file in files if file not in tables]
        pictures = pictures or [result.folder / name for name in result.default_pictures]
    if isinstance(result, DrawnResult) and pictures:
        from orchestrator.report.draw import write_figure

        drawn = result.draw()
        for path in pictures:
            write_figure(path, drawn)
        if isinstance(document, dict):
            document = document | {"pictures": [str(path) for path in pictures]}
    if as_json:
        emit_json(document)
    else:
        print_report(result.report())
    for path in pictures:
        say(f"picture: {path}")
    if isinstance(result, DrawnResult):
        result.check()


def show(result: Result | Sequence[Result], as_json: bool) -> None:
    """Print a task's result, or several: the report for people, or the JSON document."""
    if isinstance(result, Sequence):
        if as_json:
            emit_json([one.to_dict() for one in result])
        else:
            print_report(item for one in result for item in one.report())
    elif as_json:
        emit_json(result.to_dict())
    else:
        print_report(result.report())


def print_report(parts: Iterable[Table | Facts | str]) -> None:
    """Print tables, facts and lines of text."""
    for part in parts:
        match part:
            case Table():
                _print_table(part)
            case Facts():
                _print_facts(part)
            case _:
                tell(part)


def _print_table(table: Table) -> None:
    """Print the columns that fit."""
    columns = table.columns
    details = [] if _out.is_terminal else [column for column in columns if column.spare >= DETAIL_SPARE]
    shown, notes = fitting([column for column in columns if column not in details], table.rows, _out.width)
    if details:
        notes.append(f"with --json: {', '.join(column.title for column in details)}")
    _out.print(table_of(table.title, shown), highlight=False)
    for note in notes:
        tell(note)


def tell(text: str) -> None:
    """Print a line below a table: wrapped on a terminal, whole elsewhere."""
    _out.print(text, highlight=False, soft_wrap=not _out.is_terminal)


@contextmanager
def paged() -> Iterator[None]:
    """Send what is printed inside through the pager if it is longer than the terminal, like git."""
    if not _out.is_terminal:
        yield
        return
    os.environ.setdefault("LESS", "FRX")
    with _out.pager(styles=True):
        yield


def emit_json(document: Any) -> None:
    """Print a JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def _print_facts(facts: Facts) -> None:
    if facts.title:
        _out.print(facts.title, style="bold", highlight=False)
    width = max(map(len, facts.values)) + 2
    lines = Grid.grid(padding=(0, 2, 0, 0))
    lines.add_column(width=width, no_wrap=True)
    lines.add_column(overflow="fold")
    for name, value in facts.values.items():
        percent = name in facts.percent
        text = Column("", "", digits=2 if percent else None, percent=percent).text(value)
        label = f"  {name.replace('_', ' ')}"
        if _out.is_terminal:
            lines.add_row(label, text)
        else:
            _out.print(f"{label:<{width}}  {text}", highlight=False, soft_wrap=True)
    if _out.is_terminal:
        _out.print(lines, highlight=False)


def ask(prompt: str) -> str:
    """Return what a person at the terminal answers; raise DeviceError if there is no terminal."""
    if not sys.stdin.isatty():
        return refuse_question(prompt)
    return str(typer.prompt(prompt, err=True)).strip()


def say(text: str) -> None:
    """Print a line to stderr: progress and notes, never results."""
    try:
        _err.print(text, highlight=False, soft_wrap=True, markup=False)
    except KeyboardInterrupt:
        _err.begin_capture()  # otherwise the interrupted line would be printed again with the next one
        _err.end_capture()
        raise


def is_terminal() -> bool:
    """Return whether progress goes to a terminal."""
    return _err.is_terminal


@contextmanager
def progress_bar() -> Iterator[tuple[Progress, TaskID]]:
    """Yield a bar, which is drawn once it is started and disappears at the end, and its only task."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=_err, transient=True)
    try:
        yield bar, bar.add_task("", total=None)
    finally:
        bar.stop()

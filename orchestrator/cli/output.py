"""Tables for people, JSON for programs, and files, from the same results."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
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
from orchestrator.cli.table import fitting, table_of
from orchestrator.devices.common.device import refuse_question
from orchestrator.tasks.options import OUTPUT

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
        pictures = [file for file in files if file not in tables] or result.default_pictures
    if isinstance(result, DrawnResult) and pictures:
        from orchestrator.report.draw import write_figure

        drawn = result.draw()
        for path in pictures:
            write_figure(path, drawn)
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


def emit_rows(
    title: str, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], as_json: bool
) -> None:
    """Print rows as a table of the columns that fit, or as a JSON array of the whole rows."""
    show(Table(title, columns, rows), as_json)


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


def emit_facts(title: str, facts: Mapping[str, Any], as_json: bool, percent: Collection[str] = ()) -> None:
    """Print named values, one a line; those in `percent` are fractions, shown in percent."""
    show(Facts(title, facts, percent), as_json)


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

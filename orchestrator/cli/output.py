"""Tables for people and JSON for programs, from the same rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from orchestrator.devices.base import no_one_to_ask

if TYPE_CHECKING:
    from orchestrator.measure.engine import Progress as ProgressSink

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

PLAIN_WIDTH = 200
"""Width of tables that go to a file or a pipe, so that no key is broken."""

_out = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)
_err = Console(stderr=True)


@dataclass(frozen=True)
class Column:
    """`name` is the JSON field; numbers are printed with `digits` decimals, `percent` ones times 100."""

    name: str
    title: str
    digits: int | None = None
    percent: bool = False

    def text(self, value: Any) -> str:
        """The cell as a person reads it."""
        if value is None or value == "":
            return "-"
        if self.percent:
            return f"{100 * value:.{self.digits or 0}f} %"
        if isinstance(value, float) and self.digits is not None:
            return f"{value:.{self.digits}f}"
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        return str(value)


def emit_rows(title: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as a JSON array of the whole rows."""
    if as_json:
        emit_json(list(rows))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column.name), int | float) for row in rows)
        table.add_column(column.title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(column.text(row.get(column.name)) for column in columns))
    _out.print(table)


def emit_json(document: Any) -> None:
    """Print a JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False))


def emit_facts(title: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print named values, one a line."""
    if as_json:
        emit_json(facts)
        return
    if title:
        _out.print(f"[bold]{title}[/bold]")
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        _out.print(f"  {name.replace('_', ' '):<{width}}  {value}", highlight=False, soft_wrap=True)


def ask(prompt: str) -> str:
    """What a person at the terminal answers; DeviceError where nobody sits there."""
    if not sys.stdin.isatty():
        return no_one_to_ask(prompt)
    return str(typer.prompt(prompt, err=True)).strip()


def say(text: str) -> None:
    """A line to stderr: progress and notes, never results."""
    _err.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_bar() -> Iterator[ProgressSink]:
    """A progress sink that draws one bar on a terminal, and a line for each step and tenth of it elsewhere."""
    if not _err.is_terminal:
        yield _plain_sink()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task("", total=None)

        def sink(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield sink


def _plain_sink() -> ProgressSink:
    last = ("", -1)

    def sink(what: str, done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // total if total else 0
        if (what, tenth) != last:
            say(f"{what} ({done}/{total})" if total else what)
        last = (what, tenth)

    return sink

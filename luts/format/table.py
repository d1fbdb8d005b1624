"""What a task's result prints: tables of named columns, and lines of text. The command line draws them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from luts.format.files import write_text


@dataclass(frozen=True)
class Column:
    """A column of a table; `name` is the field of a row, as in JSON.

    Attributes:
        digits: Decimals of a number; four significant digits without.
        percent: Whether the number is a fraction that is shown in percent.
        counted: Whether it is a large number, shown as `2.586 M`.
        key: Whether it holds block keys, which may be shortened by what all of a kind share.
        spare: Columns with the largest number are left out first where the terminal is narrow; those with 0 stay.
    """

    name: str
    title: str
    digits: int | None = None
    percent: bool = False
    counted: bool = False
    key: bool = False
    spare: int = 0

    def text(self, value: Any) -> str:
        """Return a cell as a person reads it."""
        if value is None or value == "":
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if self.percent:
            return f"{100 * value:.{self.digits or 0}f} %"
        if self.counted:
            return count_text(value)
        if isinstance(value, float):
            return f"{value:.{self.digits}f}" if self.digits is not None else f"{value:.4g}"
        return f"{value:,}" if isinstance(value, int) else str(value)


def count_text(number: float) -> str:
    """Return a large number with four digits and its unit, `2.586 M`; exact below 1000."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:#.4g}".rstrip(".") + f" {name}"
    return f"{number:g}"


def filled(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns that have a value in any row."""
    with_value = {name for row in rows for name, value in row.items() if value is not None}
    return [column for column in columns if column.name in with_value]


def write_table(file: Path, document: Any, rows: str = "") -> None:
    """Write the whole document as JSON, or its list `rows` as CSV, as the suffix says; raises StorageError."""
    if file.suffix == ".json":
        write_text(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return
    text, listed = io.StringIO(), document[rows]
    names = dict.fromkeys(name for row in listed for name in row)
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in listed:
        writer.writerow({n: json.dumps(v) if isinstance(v, dict | list) else v for n, v in row.items()})
    write_text(file, text.getvalue())


class Result(Protocol):
    """What a task returns: it prints itself, and is a JSON document."""

    def to_dict(self) -> Any:
        """Return the JSON document, with every field."""

    def report(self) -> Iterator[Table | Facts | str]:
        """Yield what a person reads, in order."""


class DrawnResult:
    """A result with a picture; `default_pictures` are written if the user names none."""

    default_pictures: ClassVar[tuple[str, ...]] = ()
    folder: Path

    def check(self) -> None:
        """Raise BlocktimeError if a part of the result is missing; called once all is printed."""

    def draw(self) -> Any:
        """Return the picture, a matplotlib figure."""
        raise NotImplementedError


@dataclass(frozen=True)
class Table:
    """Rows under columns; alone a result too."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def to_dict(self) -> list[Mapping[str, Any]]:
        """Return the rows with all their fields."""
        return list(self.rows)

    def report(self) -> Iterator[Table]:
        """Yield the table."""
        yield self


@dataclass(frozen=True)
class Facts:
    """Named values, a line each; those in `percent` are fractions, shown in percent. Alone a result too."""

    title: str
    values: Mapping[str, Any]
    percent: Collection[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self.values)

    def report(self) -> Iterator[Facts]:
        """Yield the facts."""
        yield self

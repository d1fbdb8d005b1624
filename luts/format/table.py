"""What a task's result prints: tables, named facts and lines of text. The command line draws them.

A table or facts alone are a result, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Column:
    """A column of a table; `name` is the field of a row, as in JSON.

    Attributes:
        name: Field of the row.
        title: Head of the column.
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


def filled(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], optional: Collection[Column] | None = None
) -> list[Column]:
    """Return the columns without the optional ones (any, by default) that have no value in any row."""
    with_value = {name for row in rows for name, value in row.items() if value is not None}
    return [
        column
        for column in columns
        if column.name in with_value or (optional is not None and column not in optional)
    ]


@dataclass(frozen=True)
class Table:
    """Rows under columns."""

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
    """Named values, a line each; those in `percent` are fractions, shown in percent."""

    title: str
    values: Mapping[str, Any]
    percent: Collection[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the values."""
        return dict(self.values)

    def report(self) -> Iterator[Facts]:
        """Yield the facts."""
        yield self


class Result(Protocol):
    """What a task returns: it prints itself, and is a JSON document."""

    def to_dict(self) -> Any:
        """Return the JSON document, with every field."""

    def report(self) -> Iterator[Table | Facts | str]:
        """Yield what a person reads, in order."""

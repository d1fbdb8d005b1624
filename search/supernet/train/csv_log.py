"""A CSV file of a run that goes on: rows ascend by their first number, none comes twice."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from luts.format.atomic_file import write_atomically
from luts.format.errors import InvalidArtifactError, StorageError

MAX_LOG_BYTES = 64 * 1024 * 1024
"""A longer file is none of ours."""


class CsvRows:
    """Appends rows."""

    def __init__(self, path: Path, columns: Sequence[str], last: int):
        """Go on after the row of number `last`, 0 for none: later rows, which come again, are dropped.

        Raises:
            InvalidArtifactError: there is a file of another kind.
            StorageError: it can't be written.
        """
        self.path = path
        rows = [",".join(columns)]
        try:
            if last and path.exists():
                if path.stat().st_size > MAX_LOG_BYTES:
                    raise InvalidArtifactError(f"{path}: over {MAX_LOG_BYTES} bytes; move it away")
                rows += [row for row in path.read_text().splitlines()[1:] if _within(row, last)]
            write_atomically(path, ("\n".join(rows) + "\n").encode())
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: cannot be written ({error}); free space or move it away") from error

    def append(self, values: Iterable[object]) -> None:
        """Write a row; StorageError where that fails."""
        row = io.StringIO()
        csv.writer(row, lineterminator="\n").writerow(values)
        try:
            with self.path.open("a") as file:
                file.write(row.getvalue())
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); the last checkpoint is whole, free some space"
            ) from error


def _within(row: str, last: int) -> bool:
    number = row.partition(",")[0]
    return number.isdecimal() and int(number) <= last

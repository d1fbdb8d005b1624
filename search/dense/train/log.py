"""`log.csv` of a run: one row an epoch, none twice, with its figures on the validation images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from luts.format.atomic_file import write_atomically
from luts.format.errors import InvalidArtifactError, StorageError

MAX_LOG_BYTES = 64 * 1024 * 1024
"""A longer file is none of ours."""

COLUMNS = ("epoch", "step", "images", "learning_rate", "loss")


class EpochLog:
    """Appends rows; those of epochs that come again are dropped."""

    def __init__(self, path: Path, epochs: int, figures: tuple[str, ...]):
        """Go on after so many whole epochs.

        Raises:
            InvalidArtifactError: there is a file of another kind.
            StorageError: it can't be written.
        """
        self.path = path
        rows = [",".join((*COLUMNS, *figures))]
        try:
            if epochs and path.exists():
                if path.stat().st_size > MAX_LOG_BYTES:
                    raise InvalidArtifactError(f"{path}: over {MAX_LOG_BYTES} bytes; move it away")
                rows += [row for row in path.read_text().splitlines()[1:] if _within(row, epochs)]
            write_atomically(path, ("\n".join(rows) + "\n").encode())
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"{path}: cannot be written ({error}); free space or move it away") from error

    def note(
        self,
        epoch: int,
        step: int,
        synthetic: bool,
        learning_rate: float,
        loss: float,
        figures: Mapping[str, float | None],
    ) -> None:
        """Write the row of an epoch, counted from 1."""
        shares = ("" if share is None else f"{share:.6f}" for share in figures.values())
        row = io.StringIO()
        kind = "synthetic" if synthetic else "given"
        csv.writer(row, lineterminator="\n").writerow(
            (epoch, step, kind, f"{learning_rate:.6g}", f"{loss:.5f}", *shares)
        )
        try:
            with self.path.open("a") as file:
                file.write(row.getvalue())
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); the last checkpoint is whole, free some space"
            ) from error


def _within(row: str, epochs: int) -> bool:
    number = row.partition(",")[0]
    return number.isdecimal() and int(number) <= epochs

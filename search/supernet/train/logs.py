"""`log.csv` of a run: one row for some steps, none twice, whatever interrupted it."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import InvalidArtifactError
from search.supernet.train.csv_log import MAX_LOG_BYTES, CsvRows
from search.supernet.train.progress import Pace, Progress

COLUMNS = ("step", "epoch", "learning_rate", "loss", "accuracy", "images_per_s", "resolution")

_READ = COLUMNS[:5]

LOG_STEPS = 50
"""Steps between rows: 600,000 steps of the largest recipe make a file of one megabyte."""


@dataclass(frozen=True)
class LogRow:
    """One row; loss and accuracy are means over the steps before."""

    step: int
    epoch: int
    learning_rate: float
    loss: float
    accuracy: float


def read_log(path: Path) -> tuple[LogRow, ...]:
    """The rows of a `log.csv`, steps ascending; none where training had not come to the first.

    Raises:
        InvalidArtifactError: it can't be read, or is none of ours.
    """
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise InvalidArtifactError(f"{path}: over {MAX_LOG_BYTES} bytes; move it away")
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(header[: len(_READ)]) != _READ:
            raise ValueError(f"its columns are {', '.join(header)[:80]}")
        read = tuple(
            LogRow(int(row[0]), int(row[1]), float(row[2]), float(row[3]), float(row[4])) for row in rows
        )
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, IndexError) as error:
        raise InvalidArtifactError(
            f"{path}: not a training's log ({error}); move it away or train again"
        ) from error
    if any(not math.isfinite(value) for row in read for value in (row.loss, row.accuracy, row.learning_rate)):
        raise InvalidArtifactError(f"{path}: holds numbers that are not finite; train again")
    if any(before.step >= after.step for before, after in itertools.pairwise(read)):
        raise InvalidArtifactError(f"{path}: its steps do not ascend; move it away or train again")
    return read


class CsvLog:
    """Appends rows; loss, accuracy and speed are means over the steps before."""

    def __init__(self, path: Path, step: int):
        """Go on after `step`: rows of later steps, which come again, are dropped.

        Raises:
            InvalidArtifactError: there is a file of another kind.
            StorageError: it can't be written.
        """
        self._rows = CsvRows(path, COLUMNS, step)

    def note(self, progress: Progress, pace: Pace) -> None:
        """Write a row where one is due."""
        if progress.step % LOG_STEPS and progress.step != progress.steps:
            return
        values = (
            progress.step,
            progress.epoch + 1,
            f"{progress.learning_rate:.6g}",
            f"{pace.loss:.4f}",
            f"{pace.accuracy:.4f}",
            f"{pace.images_per_s:.1f}",
            progress.arch.resolution,
        )
        self._rows.append(values)

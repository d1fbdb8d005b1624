"""Progress of a run: state after a step, speed, and `log.csv`."""

from __future__ import annotations

import csv
import io
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from luts.format.errors import InvalidArtifactError, StorageError
from luts.format.files import write_atomically

MAX_LOG_BYTES = 64 * 1024 * 1024
"""Files larger than this were not written by blocktime."""


@dataclass(frozen=True)
class Progress:
    """State after a step.

    Attributes:
        step: Steps done.
        steps: Steps of the whole run.
        epoch: Epoch of this step, from 0.
        epochs: Epochs of the whole run.
        images: Images of this step in all processes.
        loss: Loss of this step's batch.
        accuracy: Fraction of right predictions in the (augmented) batch; 0 for tasks without such a count.
        learning_rate: Learning rate of this step.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    images: int
    loss: float
    accuracy: float
    learning_rate: float


WINDOW_STEPS = 100
"""Steps over which speed and losses are averaged: subnets differ several times in cost."""


@dataclass(frozen=True)
class Pace:
    """Means over the last steps; `left_s` is the time to the end of the run at this speed."""

    images_per_s: float
    loss: float
    accuracy: float
    left_s: float

    def line(self, last: Progress) -> str:
        """Return one line for people."""
        left = str(timedelta(seconds=round(self.left_s)))
        return (
            f"epoch {last.epoch + 1} of {last.epochs}, loss {self.loss:.3f}, lr {last.learning_rate:.2e}, "
            f"{self.images_per_s:.0f} images/s, {left} left"
        )


class Meter:
    """Speed and mean losses of the last steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Start the clock, a function that returns seconds."""
        self._clock = clock
        self._steps: deque[tuple[float, Progress]] = deque(maxlen=WINDOW_STEPS + 1)
        self._start_s = clock()

    def note(self, progress: Progress) -> Pace:
        """Add a step and return the means."""
        now_s = self._clock()
        since_s = self._steps[0][0] if self._steps else self._start_s
        self._steps.append((now_s, progress))
        counted = [step for _, step in self._steps][1 if len(self._steps) > 1 else 0 :]
        took_s = max(now_s - since_s, 1e-9)
        return Pace(
            images_per_s=sum(step.images for step in counted) / took_s,
            loss=sum(step.loss for step in counted) / len(counted),
            accuracy=sum(step.accuracy for step in counted) / len(counted),
            left_s=(progress.steps - progress.step) * took_s / len(counted),
        )


class CsvLog:
    """A CSV file that a resumed run continues."""

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        """Continue after `step`, 0 for a new run: rows of later steps, which the run repeats, are dropped.

        Raises:
            InvalidArtifactError: the file is too large.
            StorageError: the file can't be written.
        """
        self.path = path
        position = list(columns).index("step")
        rows = [",".join(columns)]
        try:
            if step and path.exists():
                if path.stat().st_size > MAX_LOG_BYTES:
                    raise InvalidArtifactError(
                        f"{path}: over {MAX_LOG_BYTES} bytes; move it away", code="file_too_large"
                    )
                rows += [row for row in path.read_text().splitlines()[1:] if _is_up_to(row, position, step)]
            write_atomically(path, ("\n".join(rows) + "\n").encode())
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{path}: cannot be written ({error}); free space or move it away", code="log_not_written"
            ) from error

    def append(self, values: Sequence[object] | None) -> None:
        """Write a row, if there is one.

        Raises:
            StorageError: the file can't be written.
        """
        if values is None:
            return
        row = io.StringIO()
        csv.writer(row, lineterminator="\n").writerow(values)
        try:
            with self.path.open("a") as file:
                file.write(row.getvalue())
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written ({error.strerror}); the last checkpoint is whole, free some space",
                code="log_not_written",
            ) from error


def _is_up_to(row: str, position: int, step: int) -> bool:
    cells = row.split(",")
    number = cells[position] if len(cells) > position else ""
    return number.isdecimal() and int(number) <= step


CLASSIFICATION_COLUMNS = ("step", "epoch", "learning_rate", "loss", "accuracy", "images_per_s", "resolution")

_READ = CLASSIFICATION_COLUMNS[:5]


@dataclass(frozen=True)
class LogRow:
    """One row of a classifier's log; loss and accuracy are means over the steps before."""

    step: int
    epoch: int
    learning_rate: float
    loss: float
    accuracy: float


def read_log(path: Path) -> tuple[LogRow, ...]:
    """Read the rows of a classifier's `log.csv`, steps ascending; there are none early in a run.

    Raises:
        InvalidArtifactError: the file can't be read, or is not such a log.
    """
    try:
        if path.stat().st_size > MAX_LOG_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_LOG_BYTES} bytes; move it away", code="file_too_large"
            )
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(header[: len(_READ)]) != _READ:
            raise ValueError(f"its columns are {', '.join(header)[:80]}")
        read = tuple(
            LogRow(int(row[0]), int(row[1]), float(row[2]), float(row[3]), float(row[4])) for row in rows
        )
        if any(not math.isfinite(x) for row in read for x in (row.loss, row.accuracy, row.learning_rate)):
            raise ValueError("it has numbers that are not finite")
        if any(before.step >= after.step for before, after in itertools.pairwise(read)):
            raise ValueError("its steps do not ascend")
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: cannot be read ({error.strerror}); check the path", code="unreadable_file"
        ) from error
    except (ValueError, IndexError) as error:
        raise InvalidArtifactError(
            f"{path}: not a training's log ({error}); move it away or train again", code="invalid_log"
        ) from error
    return read

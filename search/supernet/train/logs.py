"""Progress of a run: state after a step, speed, and `log.csv`."""

from __future__ import annotations

import csv
import io
import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError, StorageError, first_problem
from luts.format.files import read_bytes, write_atomically

MAX_LOG_BYTES = 64 * 1024 * 1024
"""Files larger than this were not written by blocktime."""


@dataclass(frozen=True)
class Progress:
    """State after `step` of `steps`, in an epoch counted from 0.

    Attributes:
        images: Images of this step in all processes.
        loss: Loss of this step's batch.
        accuracy: Fraction of right predictions in the (augmented) batch; 0 for tasks without such a count.
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
class TrainingPace:
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

    def note(self, progress: Progress) -> TrainingPace:
        """Add a step and return the means."""
        now_s = self._clock()
        since_s = self._steps[0][0] if self._steps else self._start_s
        self._steps.append((now_s, progress))
        counted = [step for _, step in self._steps][1 if len(self._steps) > 1 else 0 :]
        took_s = max(now_s - since_s, 1e-9)
        return TrainingPace(
            images_per_s=sum(step.images for step in counted) / took_s,
            loss=sum(step.loss for step in counted) / len(counted),
            accuracy=sum(step.accuracy for step in counted) / len(counted),
            left_s=(progress.steps - progress.step) * took_s / len(counted),
        )


class CsvLog:
    """A CSV file that a resumed run continues."""

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        """Continue after `step`, 0 for a new run: rows of later steps, which the run repeats, are dropped.

        Raises StorageError if the file can't be written.
        """
        self.path = path
        position = list(columns).index("step")
        rows = [",".join(columns)]
        try:
            if step and path.exists():
                for row in path.read_text().splitlines()[1:]:
                    number = "".join(row.split(",")[position : position + 1])
                    if number.isdecimal() and int(number) <= step:
                        rows.append(row)
            write_atomically(path, ("\n".join(rows) + "\n").encode())
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(
                f"{path}: cannot be written ({error}); free space or move it away", code="log_not_written"
            ) from error

    def append(self, values: Sequence[object] | None) -> None:
        """Write a row, if there is one; raises StorageError."""
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


CLASSIFICATION_COLUMNS = ("step", "epoch", "learning_rate", "loss", "accuracy", "images_per_s", "resolution")


def classification_row(
    progress: Progress, pace: TrainingPace, mean: Progress | TrainingPace, resolution: int
) -> tuple[object, ...]:
    """Return a row of `CLASSIFICATION_COLUMNS`, with the loss and accuracy of `mean`."""
    return (
        progress.step,
        progress.epoch + 1,
        f"{progress.learning_rate:.6g}",
        f"{mean.loss:.4f}",
        f"{mean.accuracy:.4f}",
        f"{pace.images_per_s:.1f}",
        resolution,
    )


@dataclass(frozen=True)
class LogRow:
    """One row of a classifier's log; loss and accuracy are means over the steps before."""

    step: int
    epoch: int
    learning_rate: FiniteFloat
    loss: FiniteFloat
    accuracy: FiniteFloat


_ROWS = TypeAdapter(tuple[LogRow, ...])


def read_log(path: Path) -> tuple[LogRow, ...]:
    """Read the rows of a classifier's `log.csv`, steps ascending; there are none early in a run.

    Raises InvalidArtifactError for a file that can't be read, or is not such a log.
    """
    data = read_bytes(path, MAX_LOG_BYTES, "check the path")
    try:
        rows = csv.DictReader(data.decode().splitlines())
        header = [] if rows.fieldnames is None else rows.fieldnames
        if not {field.name for field in fields(LogRow)} <= set(header):
            raise ValueError(f"its columns are {', '.join(header)[:80]}")
        read = _ROWS.validate_python(tuple(rows))
        if any(before.step >= after.step for before, after in itertools.pairwise(read)):
            raise ValueError("its steps do not ascend")
    except ValueError as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else error
        raise InvalidArtifactError(
            f"{path}: not a training's log ({reason}); move it away or train again", code="invalid_log"
        ) from error
    return read

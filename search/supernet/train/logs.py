"""Training log, progress and validation probes of a run."""

from __future__ import annotations

import csv
import io
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from luts.format.errors import InvalidArtifactError, StorageError
from luts.format.files import write_atomically
from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.samplers import Sampler

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


WINDOW_STEPS = 100
"""Steps over which speed and losses are averaged: subnets differ several times in cost."""


@dataclass(frozen=True)
class Progress:
    """State after a step, for whoever watches.

    Attributes:
        step: Steps done.
        steps: Steps of the whole run.
        epoch: Epoch of this step, from 0.
        images: Images of this step, all processes together.
        loss: Loss of this step's subnet and batch.
        accuracy: Its share of right labels in the (augmented) batch.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    images: int
    loss: float
    accuracy: float
    learning_rate: float
    arch: Arch


@dataclass(frozen=True)
class Pace:
    """Means over the last steps.

    Attributes:
        left_s: Seconds to the end of the run at this speed.
    """

    images_per_s: float
    loss: float
    accuracy: float
    left_s: float

    def line(self, last: Progress) -> str:
        """One line for people."""
        left = str(timedelta(seconds=round(self.left_s)))
        return (
            f"epoch {last.epoch + 1} of {last.epochs}, loss {self.loss:.3f}, lr {last.learning_rate:.2e}, "
            f"{self.images_per_s:.0f} images/s, {left} left"
        )


class Meter:
    """Speed and mean losses of the last steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """`clock`: seconds since some moment."""
        self._clock = clock
        self._steps: deque[tuple[float, Progress]] = deque(maxlen=WINDOW_STEPS + 1)
        self._began_s = clock()

    def note(self, progress: Progress) -> Pace:
        """Take a step into account."""
        now_s = self._clock()
        since_s = self._steps[0][0] if self._steps else self._began_s
        self._steps.append((now_s, progress))
        counted = [step for _, step in self._steps][1 if len(self._steps) > 1 else 0 :]
        took_s = max(now_s - since_s, 1e-9)
        return Pace(
            images_per_s=sum(step.images for step in counted) / took_s,
            loss=sum(step.loss for step in counted) / len(counted),
            accuracy=sum(step.accuracy for step in counted) / len(counted),
            left_s=(progress.steps - progress.step) * took_s / len(counted),
        )


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


PROBES = 4
"""Subnets: enough that `best` does not depend on one of them."""

PROBE_IMAGES = 512
"""Images of the search split; their accuracy has a standard error of 2 %, alike in all checkpoints."""

BATCH_SIZE = 128


def probes(sampler: Sampler, resolution: int) -> list[Arch]:
    """Subnets that a run trains, the same whenever it is asked."""
    rng = random.Random("probes")
    drawn = itertools.chain.from_iterable(sampler.draw(rng, resolution) for _ in range(PROBES))
    return list(dict.fromkeys(itertools.islice(drawn, PROBES)))


def probe_images(data: ImageData) -> np.ndarray:
    """Indices of the images that the probes are judged by."""
    return data.split.search[:: max(1, len(data.split.search) // PROBE_IMAGES)]


@torch.no_grad()
def held_out_top1(
    supernet: Supernet, archs: Sequence[Arch], weights: Mapping[str, Tensor], data: ImageData
) -> float:
    """Mean top-1 accuracy of subnets with `weights`, BN normalising by the batch as in training."""
    hits = images_seen = 0
    device = next(iter(weights.values())).device
    for images, labels in data.batches(probe_images(data), archs[0].resolution, BATCH_SIZE):
        for arch in archs:
            logits = functional_call(supernet, dict(weights), (images.to(device), arch))
            hits += int((logits.argmax(1).cpu() == labels).sum())
            images_seen += len(labels)
    return hits / images_seen

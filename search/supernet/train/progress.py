"""What a run says of itself while it goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from search.spaces import Arch

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

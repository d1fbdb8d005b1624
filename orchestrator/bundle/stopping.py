"""When an agent alone has measured enough: how noisy a batch's ratios still are, and what all passes tell.

The rules of a live run (`orchestrator/measure`) with estimates that a phone's agent can make: a load's noise is
that of its midmean by the winsorized variance (Tukey and McLaughlin 1963) instead of a bootstrap, and loads of all
models share one variance. They decide when to stop, and nothing else: `bench import` estimates from the samples.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from orchestrator.bundle.archive import FIRST_MODEL, Order, Stop

Ending = Literal["narrow", "budget", "passes"]
"""Every model is narrow, the time is up, or all passes are made."""

CUT = 4
"""One in four rounds is cut from each end, as in a LUT's midmean."""

ERRORS = 2.0
"""Standard errors of a mean over loads in half an interval."""


class BatchRatios:
    """Natural logarithms of ratios to the reference, of each slot in each round of a batch."""

    def __init__(self) -> None:
        self._logs: dict[int, list[float]] = {}
        self.rounds = 0

    def add(self, order: Order, samples: bytes) -> None:
        """Take in a run: slots visited, and nanoseconds as u64; of a slot's visits in a round the last counts."""
        ns = struct.iter_unpack(">Q", samples)
        for visited in order:
            logs = {slot: math.log(max(1, next(ns)[0])) for slot in visited}
            reference = sum(logs[slot] for slot in range(FIRST_MODEL)) / FIRST_MODEL
            for slot in logs.keys() - range(FIRST_MODEL):
                self._logs.setdefault(slot, []).append(logs[slot] - reference)
            self.rounds += 1

    def locations(self) -> dict[int, float]:
        """Midmean of each slot's rounds."""
        return {slot: _midmean(sorted(logs)) for slot, logs in self._logs.items()}

    def noise(self) -> float:
        """Standard error of the midmean of the slot that has most."""
        return max(map(_error, self._logs.values()), default=0.0)

    def are_enough(self, stop: Stop | None) -> bool:
        """Whether the batch can end before all its runs."""
        return stop is not None and self.rounds >= stop.min_rounds and self.noise() <= stop.load_se


def ending(
    stop: Stop | None,
    passes: int,
    loads: Mapping[str, Sequence[float]],
    models: Collection[str],
    worked_s: float,
) -> Ending | None:
    """Why a bundle ends after `passes`; None where the next one is to be made.

    `loads` are midmeans of models' loads, `models` those that are to be narrow, `worked_s` seconds of all batches.
    """
    if stop is None or passes < stop.min_passes:
        return None
    if half_width([loads.get(model, ()) for model in models]) <= stop.half_width:
        return "narrow"
    return "budget" if worked_s > stop.budget_s else None


def half_width(groups: Collection[Sequence[float]]) -> float:
    """Half the widest 95 % interval of a model's mean over its loads; infinite where one has fewer than two."""
    fewest = min(map(len, groups), default=0)
    if not groups:
        return 0.0
    if fewest < 2:
        return math.inf
    squares = sum((value - sum(group) / len(group)) ** 2 for group in groups for value in group)
    variance = squares / sum(len(group) - 1 for group in groups)
    return ERRORS * math.sqrt(variance / fewest)


def _midmean(ordered: Sequence[float]) -> float:
    cut = len(ordered) // CUT
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


def _error(logs: Sequence[float]) -> float:
    """Standard error of the midmean; infinite for one round."""
    count, cut = len(logs), len(logs) // CUT
    if count < 2:
        return math.inf
    ordered = sorted(logs)
    low, high = ordered[cut], ordered[count - 1 - cut]
    winsorized = [min(max(value, low), high) for value in logs]
    mean = sum(winsorized) / count
    variance = sum((value - mean) ** 2 for value in winsorized) / (count - 1)
    return math.sqrt(variance / count) / (1 - 2 * cut / count)

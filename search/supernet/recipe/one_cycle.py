"""torch's one-cycle schedule (Smith & Topin 2018) at any step, so that a run needs no scheduler's state."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import OneCycleLR

START_SHARE = 1 / 25
LEAST_SHARE = 1e-4
"""Of the peak, and of the start: torch's defaults."""


def one_cycle(
    step: int, steps: int, *, rising: float, peak: float, start: float = 0.0, least: float = 0.0
) -> float:
    """Learning rate of a step counted from 0.

    Args:
        step: Below `steps`.
        steps: Of the whole run.
        rising: Share of the run until the peak; more than all of it counts as all, up to one step as none, by which
            torch would divide.
        peak: Largest learning rate.
        start: That of the first step; 0 for `START_SHARE` of the peak.
        least: That of the last; 0 for `LEAST_SHARE` of the start.
    """
    start = min(start or START_SHARE * peak, peak)
    least = least or LEAST_SHARE * start
    group = {"params": [torch.zeros(1)], "initial_lr": start, "max_lr": peak, "min_lr": least}
    schedule = OneCycleLR(
        torch.optim.SGD([group], lr=start),
        peak,
        total_steps=steps,
        pct_start=min(rising, 1.0) if rising * steps > 1 else 0.0,
        cycle_momentum=False,
        div_factor=peak / start,
        final_div_factor=start / least,
        last_epoch=step - 1,
    )
    return float(schedule.get_last_lr()[0])

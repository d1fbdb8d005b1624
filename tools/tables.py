"""What studies and benchmarks share: tables in Markdown or JSON, intervals, progress, worker processes."""

from __future__ import annotations

import datetime
import importlib
import json
import math
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import psutil
from scipy import stats

from luts.format.processes import WorkerPool
from luts.format.schema import Floats
from orchestrator.agent.device import describe_host
from orchestrator.tasks.progress import Event, Step

Item = TypeVar("Item")
Result = TypeVar("Result")

Rows = Sequence[Mapping[str, Any]]
Tables = Mapping[str, Rows]
"""Rows of every table, by its title; the keys of the first row are the columns."""

RESAMPLES = 2000
"""Draws of a bootstrap."""


class Interval(NamedTuple):
    """A value with the ends of its 95 % interval, or a mean with the smallest and the largest value."""

    value: float
    low: float
    high: float


def mean_and_range(values: Sequence[float] | Floats, scale: float = 1.0) -> Interval:
    """Return the mean of values with the smallest and the largest, all multiplied by `scale`."""
    scaled = [scale * float(value) for value in values]
    return Interval(statistics.fmean(scaled), min(scaled), max(scaled))


def resampled(
    statistic: Callable[..., float], *columns: Sequence[float] | Floats, resamples: int = RESAMPLES
) -> Interval:
    """Return a statistic of paired columns with its 95 % percentile interval, by resampling rows (bootstrap)."""
    rows, generator = np.array(columns), np.random.default_rng(0)
    count = rows.shape[1]
    drawn = [statistic(*rows[:, generator.integers(0, count, count)]) for _ in range(resamples)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(statistic(*rows), float(low), float(high))


def tau(a: Sequence[float] | Floats, b: Sequence[float] | Floats) -> float:
    """Return Kendall's rank correlation tau-b."""
    return float(stats.kendalltau(a, b).statistic)


def run_parallel(function: Callable[[Item], Result], items: Sequence[Item], jobs: int) -> list[Result]:
    """Return `function(item)` of every item, computed by `jobs` processes with one thread each.

    A single job or item runs in this process, with all cores.
    """
    if jobs == 1 or len(items) == 1:
        return [function(item) for item in items]
    with WorkerPool(_start_worker, (function,), jobs) as pool:
        return list(pool.map(items))


def _start_worker(_number: int, function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)
    return function


def log(event: Event | str) -> None:
    """Print a progress event to standard error; of steps that are counted every hundredth."""
    if not isinstance(event, Step) or event.done % 100 == 0:
        print(event, file=sys.stderr, flush=True)


def entry_point(package: str, name: str) -> Callable[..., Tables]:
    """Import and return the function that `MODULE:FUNCTION` names in a package."""
    module, _, function = name.partition(":")
    found: Callable[..., Tables] = getattr(importlib.import_module(f"{package}.{module}"), function)
    return found


def show(tables: Tables, *, as_json: bool) -> None:
    """Print tables as JSON, or as Markdown with the date and the machine below."""
    if as_json:
        print(json.dumps(tables, default=float))
        return
    for title, rows in tables.items():
        print(f"\n### {title}\n")
        if rows:
            columns = list(rows[0])
            lines = [columns, ["---"] * len(columns)]
            lines += [[_cell(row.get(column)) for column in columns] for row in rows]
            print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    from torch.backends.cpu import get_cpu_capability  # seconds

    processor = f"{describe_host().soc} ({get_cpu_capability()})"
    machine = f"{platform.system()} {platform.machine()}, {processor}, {psutil.cpu_count()} cores"
    print(f"\n{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Interval):
        if value.low == value.high:
            return _cell(value.value)
        return f"{_cell(value.value)} ({_cell(value.low)} to {_cell(value.high)})"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "never" if value > 0 else "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

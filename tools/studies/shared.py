"""Options of a study, and what several studies do: run in parallel, compare ranks, draw figures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from scipy import stats

from luts.format.errors import UsageError
from luts.format.processes import end_with_parent
from orchestrator.report.draw import BLUE, GREEN, INK, MUTED, ORANGE, PINK, RED, SKY, figure, legend
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.measured import MeasuredNetwork
from orchestrator.tasks.target import Target
from search.spaces import Arch
from search.spaces.published import Published
from tools.tables import Rows, log

Item = TypeVar("Item")
Result = TypeVar("Result")

COLOURS = (ORANGE, BLUE, GREEN, PINK, SKY, RED, MUTED, INK)
"""Colours of the lines of a figure, in order."""


@dataclass(frozen=True)
class Options:
    """Options of `python -m tools.studies`.

    Attributes:
        data: Image source as in `bench train --data`; None if not given.
        quick: Run on tiny networks and few images, to check that the study works.
        seeds: Trainings of each kind.
        epochs: Epochs of each training.
        alone_epochs: Epochs of networks that are trained on their own; `epochs` by default.
        jobs: Processes that train in parallel.
        device: Device that latency is measured on.
        budget_s: Time limit of each measurement in seconds.
        pictures: Folder of the figures.
        truth: Published accuracies of NAS-Bench-Macro, a JSON file.
        lut: Name of the LUT that prices networks.
        supernet: Folder of a network that `bench train --arch` trained.
        on: Device of training and evaluation: `auto`, `cpu`, `cuda` or `mps`.
    """

    data: str | None = None
    quick: bool = False
    seeds: int = 3
    epochs: int = 3
    alone_epochs: int | None = None
    jobs: int = 1
    device: str = "host"
    budget_s: float = 300.0
    pictures: Path = Path("docs/pictures")
    truth: Path | None = None
    lut: str = "host/nasbench-macro"
    supernet: Path | None = None
    on: str = "cpu"

    @property
    def images(self) -> str:
        """Image source of a study that trains; a small built-in one for a quick run.

        Raises:
            UsageError: none was given.
        """
        if self.data is None and not self.quick:
            raise UsageError(
                "this study trains networks; add --data, such as cifar10:DIR, or --quick", code="no_data"
            )
        return self.data or "digits"

    @property
    def target(self) -> Target:
        """The device with one thread, in the default runtime and precision."""
        return Target(self.device, threads=1)

    def measure(
        self,
        networks: Mapping[str, Arch | Published] | Sequence[str] = (),
        *,
        batches: Sequence[int] = (1,),
        files: Sequence[Path] = (),
        budget_s: float | None = None,
    ) -> tuple[MeasuredNetwork, ...]:
        """Measure networks, or exported files, in one interleaved run; a quick run skips the self-test."""
        command = MeasureCommand(
            networks=networks,
            target=self.target,
            batches=tuple(batches),
            files=tuple(files),
            budget_s=self.budget_s if budget_s is None else budget_s,
            self_test=not self.quick,
        )
        return measure_networks(command, log).networks

    @contextmanager
    def draw(self, name: str, width_px: int, height_px: int, columns: int = 1) -> Iterator[Sequence[Axes]]:
        """Draw a figure of panels side by side within the context, and write it as `NAME.png` with a legend."""
        with figure(width_px, height_px) as drawn:
            panels = drawn.subplots(1, columns, squeeze=False, sharex=True)[0]
            yield panels
            if handles := panels[0].get_legend_handles_labels()[0]:
                legend(drawn, handles, width_px)
            self.pictures.mkdir(parents=True, exist_ok=True)
            drawn.savefig(self.pictures / f"{name}.png", dpi=144, facecolor="white")


def draw_lines(panel: Axes, rows: Rows, x: str, y: str, group: str) -> None:
    """Plot a column of intervals over another, a line with a band for each value of the column `group`."""
    for name, colour in zip(dict.fromkeys(row[group] for row in rows), COLOURS, strict=False):
        own = [row for row in rows if row[group] == name]
        positions = [row[x] for row in own]
        means, lows, highs = zip(*(row[y] for row in own), strict=True)
        panel.plot(positions, means, marker="o", markersize=4, color=colour, label=name)
        panel.fill_between(positions, lows, highs, color=colour, alpha=0.2, linewidth=0)
    panel.set(xlabel=x, ylabel=y)
    panel.grid(axis="y")


def run_parallel(
    function: Callable[[Item, str, int], Result], items: Sequence[Item], options: Options
) -> list[Result]:
    """Return `function(item, on, number)` of every item, computed in `options.jobs` processes with one core each.

    `number` assigns GPUs in turn. A single job or item runs in this process, with all cores.
    """
    if options.jobs == 1 or len(items) == 1:
        return [function(item, options.on, 0) for item in items]
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn"), _start_worker) as pool:
        futures = [pool.submit(function, item, options.on, number) for number, item in enumerate(items)]
        return [future.result() for future in futures]


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)
    end_with_parent()


def tau(a: ArrayLike, b: ArrayLike) -> float:
    """Return Kendall's rank correlation tau-b."""
    return float(stats.kendalltau(a, b).statistic)

"""Options of a study, measurements on its device, and figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from matplotlib.axes import Axes

from luts.format.errors import UsageError
from orchestrator.report.draw import BLUE, GREEN, INK, MUTED, ORANGE, PINK, RED, SKY, figure, legend
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.measured import MeasuredNetwork
from orchestrator.tasks.parsing import parse_budget
from orchestrator.tasks.target import Target
from search.spaces import Arch
from search.spaces.published import Published
from tools.tables import Rows, log

Value = TypeVar("Value")

COLOURS = (ORANGE, BLUE, GREEN, PINK, SKY, RED, MUTED, INK)
"""Colours of the lines of a figure, in order."""


def _option(help_text: str, parse: Callable[[str], Any] = str) -> dict[str, Any]:
    return {"help": help_text, "type": parse}


@dataclass(frozen=True)
class Options:
    """Options of `python -m tools.studies`; each field is an option of the same name."""

    data: str | None = field(
        default=None, metadata=_option("image source as in `bench train`: npz:FILE, cifar10:DIR, ...")
    )
    quick: bool = field(
        default=False, metadata=_option("tiny networks and few images: check that the study works", bool)
    )
    seeds: int = field(default=3, metadata=_option("trainings of each kind", int))
    epochs: int = field(default=3, metadata=_option("epochs of each training", int))
    alone_epochs: int | None = field(
        default=None, metadata=_option("epochs of networks trained on their own (default: --epochs)", int)
    )
    jobs: int = field(default=os.cpu_count() or 1, metadata=_option("processes that train in parallel", int))
    device: str = field(default="host", metadata=_option("device that latency is measured on"))
    budget: float = field(
        default=300.0, metadata=_option("time limit of a measurement: 90s, 5m, 2h", parse_budget)
    )
    pictures: Path = field(default=Path("docs/pictures"), metadata=_option("folder of the figures", Path))
    truth: Path | None = field(
        default=None, metadata=_option("nas-bench-macro.json: published accuracies", Path)
    )
    lut: str = field(
        default="host/nasbench-macro",
        metadata=_option("LUT that prices networks; `boundaries` takes several with commas"),
    )
    supernet: Path | None = field(
        default=None, metadata=_option("folder that `bench train --arch` wrote, for `int8`", Path)
    )
    only: str = field(
        default="",
        metadata=_option("rows of `mixers`, `objectives`, `positions` or `reductions`, with commas"),
    )
    on: str = field(
        default="cpu", metadata=_option("device of training and evaluation: auto, cpu, cuda or mps")
    )

    def pick(self, full: Value, quick: Value) -> Value:
        """Return `quick` for a quick run, else `full`."""
        return quick if self.quick else full

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
        self, networks: Mapping[str, Arch | Published | str] | Sequence[str] = (), **changes: Any
    ) -> tuple[MeasuredNetwork, ...]:
        """Measure networks in one interleaved run; a quick run skips the self-test.

        `changes` are fields of `MeasureCommand`, such as batches or exported files.
        """
        own: dict[str, Any] = {"target": self.target, "budget_s": self.budget, "self_test": not self.quick}
        return measure_networks(MeasureCommand(networks=networks, **(own | changes)), log).networks

    def picture(self, name: str) -> Path:
        """Return the path of a figure, in a folder that exists."""
        self.pictures.mkdir(parents=True, exist_ok=True)
        return self.pictures / f"{name}.png"

    @contextmanager
    def draw(self, name: str, width_px: int, height_px: int, columns: int = 1) -> Iterator[Sequence[Axes]]:
        """Draw a figure of panels side by side within the context, and write it as `NAME.png` with a legend."""
        with figure(width_px, height_px) as drawn:
            panels = drawn.subplots(1, columns, squeeze=False, sharex=True)[0]
            yield panels
            if handles := panels[0].get_legend_handles_labels()[0]:
                legend(drawn, handles, width_px)
            drawn.savefig(self.picture(name), dpi=144, facecolor="white")


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

"""The winner drawn: its blocks in order of execution, with widths and resolutions."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import BoxStyle, FancyBboxPatch, Rectangle

from orchestrator.report.draw import INK, MUTED, PAPER, figure, kind_colours
from search.blocks import BlockSpec
from search.spaces import Arch

BOX_PX, BOX_HEIGHT_PX = 126, 113
TEXT_LEFT_PX, SMALL_CHARACTER_PX = 12, 5.5
"""Where a box's text begins, and the mean width of a character of its small lines, three of which have room."""

GAP_PX, ROW_GAP_PX = 20, 30
MARGIN_PX = 6


@dataclass(frozen=True)
class Step:
    """Equal blocks in a row, as they are shown: `times` of `block`."""

    block: BlockSpec
    times: int

    @property
    def title(self) -> str:
        """Kind, and how often."""
        return self.block.kind + (f" × {self.times}" if self.times > 1 else "")

    @property
    def channels(self) -> str:
        """Width before and after."""
        return f"{_change(self.block.in_channels, self.block.out_channels)} ch"

    @property
    def sides(self) -> str:
        """Side of the map before and after, in pixels."""
        return f"{_change(self.block.resolution, self.block.out_resolution)} px"

    @property
    def details(self) -> str:
        """What else its key says and a reader cannot see."""
        known = {"in", "out", "c", "classes", "patch"}
        named = [
            (field.metadata["key"], getattr(self.block, field.name))
            for field in dataclasses.fields(self.block)
            if "key" in field.metadata
        ]
        return ", ".join(f"{name}\N{NO-BREAK SPACE}{value:g}" for name, value in named if name not in known)


def steps(arch: Arch) -> tuple[Step, ...]:
    """The blocks of a network, equal neighbours taken together."""
    groups = itertools.groupby(arch.blocks())
    return tuple(Step(block, len(list(same))) for block, same in groups)


def architecture_figure(arch: Arch, width_px: int) -> Figure:
    """Boxes from left to right, row after row."""
    shown = steps(arch)
    columns = max(2, (width_px + GAP_PX - 2 * MARGIN_PX) // (BOX_PX + GAP_PX))
    rows = -(-len(shown) // columns)
    height_px = rows * BOX_HEIGHT_PX + (rows - 1) * ROW_GAP_PX + 2 * MARGIN_PX
    pitch_px = (width_px - 2 * MARGIN_PX + GAP_PX) / columns
    colours = kind_colours(step.block.kind for step in shown)
    places = [
        (
            MARGIN_PX + (index % columns) * pitch_px,
            MARGIN_PX + (index // columns) * (BOX_HEIGHT_PX + ROW_GAP_PX),
        )
        for index in range(len(shown))
    ]
    with figure(width_px, height_px) as drawn:
        drawn.set_layout_engine("none")
        axes = drawn.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, width_px)
        axes.set_ylim(height_px, 0)
        for step, place in zip(shown, places, strict=True):
            _box(axes, step, place, pitch_px - GAP_PX, colours[step.block.kind])
        for before, after in itertools.pairwise(places):
            _arrow(axes, before, after, pitch_px - GAP_PX)
    return drawn


def _box(axes: Axes, step: Step, place: tuple[float, float], width_px: float, colour: str) -> None:
    left, top = place
    rounded = BoxStyle.Round(pad=0, rounding_size=5)
    axes.add_patch(FancyBboxPatch(place, width_px, BOX_HEIGHT_PX, rounded, facecolor=PAPER, edgecolor=colour))
    axes.add_patch(Rectangle((left, top + 5), 5, BOX_HEIGHT_PX - 10, facecolor=colour, linewidth=0))
    room = int((width_px - TEXT_LEFT_PX) / SMALL_CHARACTER_PX)
    lines = [(step.title, 12.0, INK, 19), (step.channels, 11.0, INK, 39), (step.sides, 11.0, INK, 56)]
    for number, text in enumerate(textwrap.wrap(step.details, room)):
        lines.append((text, 9.5, MUTED, 75 + 13 * number))
    for text, size, ink, offset in lines:
        weight = "bold" if size == 12 else "normal"
        axes.text(
            left + TEXT_LEFT_PX, top + offset, text, fontsize=size, color=ink, weight=weight, va="center"
        )


def _arrow(axes: Axes, before: tuple[float, float], after: tuple[float, float], width_px: float) -> None:
    """To the next box, around the end of the row where it stands in the next one."""
    look = {"arrowstyle": "-|>", "color": MUTED, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    if before[1] == after[1]:
        middle = before[1] + BOX_HEIGHT_PX / 2
        axes.annotate("", (after[0], middle), (before[0] + width_px, middle), arrowprops=look)
        return
    start, end = before[0] + width_px / 2, after[0] + width_px / 2
    turn = before[1] + BOX_HEIGHT_PX + ROW_GAP_PX / 2
    axes.plot([start, start, end], [before[1] + BOX_HEIGHT_PX, turn, turn], color=MUTED, linewidth=1)
    axes.annotate("", (end, after[1]), (end, turn), arrowprops=look)


def _change(before: int, after: int) -> str:
    return f"{before}" if before == after else f"{before} → {after}"

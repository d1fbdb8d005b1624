"""Style and building blocks of all figures, and inline SVG for the report's page.

A figure is drawn in CSS pixels. Its neutral colours become CSS variables, so that the page decides about
light and dark; its text stays text, set in the page's fonts.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from luts.format.errors import UsageError
from luts.format.files import storage_errors

WIDE_PX = 880
NARROW_PX = 388
"""Each figure is drawn twice: for a desktop and for a phone, where the first would be too small to read."""
SMALL_BELOW_PX = 600

LEGEND_HANDLE_PX, LEGEND_CHARACTER_PX = 38, 6.9
"""Width of a legend's entry without its text, and of each character, at the size used."""

INK, MUTED, GRID, PAPER = "#1b1c1e", "#6a6d73", "#dcdde0", "#fdfdfc"
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
"""Okabe and Ito's palette without its yellow, which is too light on white: distinct for colour-blind readers."""
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED)
"""Colours of lines, in order."""
BROWN, GREY, RUST, PURPLE = "#8c6d31", "#a3a7ad", "#7a3b00", "#5e4fa2"
DARK = {RED, BLUE, GREEN, BROWN, RUST, PURPLE}
"""Colours on which text is white."""

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
}
"""Colours that differ between light and dark pages."""

BASE, MOVED = "base", "data moved"
"""Kinds of the two parts of a latency that are not blocks."""

_KINDS = {
    "conv": BLUE,
    "mbconv": ORANGE,
    "mvit.shell": GREEN,
    "mvit.layer": PINK,
    "head.fc": SKY,
    "head.mbpool": RED,
    BASE: MUTED,
    MOVED: GREY,
}
_SPARE = (RED, SKY, BLUE, ORANGE, GREEN, PINK)

_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "blocktime",
    "text.parse_math": False,
    "figure.dpi": 72,
    "savefig.transparent": True,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
}

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"font:\s*((?:[a-z0-9]+ )*?)([0-9.]+px) ([^;]+)")


def kind_colours(kinds: Iterable[str]) -> dict[str, str]:
    """Return a colour for each kind of block, the same in all figures of a report."""
    unknown = sorted(set(kinds) - set(_KINDS))
    return _KINDS | {kind: _SPARE[number % len(_SPARE)] for number, kind in enumerate(unknown)}


@contextmanager
def figure(width_px: float, height_px: float) -> Iterator[Figure]:
    """Yield an empty figure in the report's style, to be filled inside the `with`."""
    with mpl.rc_context(_RC):
        yield Figure(figsize=(width_px / 72, height_px / 72), layout="constrained")


def legend(drawn: Figure, handles: Sequence[Any], width_px: float) -> None:
    """Add a legend above the figure, in as few rows as fit; columns are filled downwards."""
    widths = [LEGEND_HANDLE_PX + LEGEND_CHARACTER_PX * len(handle.get_label()) for handle in handles]
    rows = 1
    while rows < len(widths):
        columns = [max(widths[start : start + rows]) for start in range(0, len(widths), rows)]
        if sum(columns) <= width_px:
            break
        rows += 1
    drawn.legend(handles=list(handles), loc="outside upper left", ncols=-(-len(widths) // rows))


def svg(drawn: Figure, name: str, title: str, description: str) -> Markup:
    """Return the figure as inline SVG without external references.

    `name` makes its ids unique in the page.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(_RC):
        drawn.savefig(buffer, format="svg", metadata=nothing)
    root = ET.fromstring(buffer.getvalue())
    for element in root.iter():
        _localise(element, name)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-desc")
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(position, element)
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))


SUFFIXES = (".svg", ".png", ".pdf")


def write_figure(path: Path, drawn: Figure, option: str = "--output") -> None:
    """Write a figure on white in the format of the file's suffix; equal figures give equal bytes.

    Raises:
        UsageError: another suffix.
        StorageError: the file can't be written.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: expected a name that ends in {', '.join(SUFFIXES)}", code="unknown_suffix")
    undated = {"CreationDate" if path.suffix == ".pdf" else "Date": None}
    look: dict[str, Any] = {"dpi": 144, "transparent": False, "facecolor": "white"}
    with storage_errors(f"cannot write {path}", f"choose another {option}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(_RC):
            drawn.savefig(path, metadata=undated, **look)


def _localise(element: ET.Element, name: str) -> None:
    """Remove namespaces (HTML needs none), prefix ids, and use the page's colours and fonts."""
    element.tag = element.tag.removeprefix(_SVG)
    if element.tag == "metadata":
        element.clear()
    attributes: dict[str, Any] = element.attrib
    target = attributes.pop(_HREF, None)
    if target is not None:
        attributes["href"] = target
    for attribute, value in list(attributes.items()):
        if attribute == "id":
            value = f"{name}-{value}"
        elif attribute == "href":
            value = f"#{name}-{value.removeprefix('#')}"
        else:
            value = re.sub(r"url\(#", f"url(#{name}-", value)
        if attribute == "style":
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, variable)
            value = _FONT.sub(_font, value)
        attributes[attribute] = value


def _font(match: re.Match[str]) -> str:
    family = "var(--mono)" if "Mono" in match[3] else "var(--sans)"
    return f"font: {match[1]}{match[2]} {family}"


def errorbars(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    x_ends: Sequence[tuple[float, float]] | None = None,
    y_ends: Sequence[tuple[float, float]] | None = None,
    **look: Any,
) -> None:
    """Draw points with intervals given by their ends (low, high); arms that rounding made negative are 0."""

    def arms(
        centres: Sequence[float], ends: Sequence[tuple[float, float]] | None
    ) -> list[list[float]] | None:
        if ends is None:
            return None
        below = [max(centre - low, 0.0) for centre, (low, _) in zip(centres, ends, strict=True)]
        above = [max(high - centre, 0.0) for centre, (_, high) in zip(centres, ends, strict=True)]
        return [below, above]

    axes.errorbar(x, y, xerr=arms(x, x_ends), yerr=arms(y, y_ends), **look)


def stacked_bar(
    axes: Any,
    place: float,
    pieces: Sequence[tuple[float, str, str | None]],
    text_from: float,
    text: str = "{:.2f}",
) -> float:
    """Draw a horizontal bar of pieces, negative ones to the left of 0, and return its right end.

    Args:
        axes: Axes of the figure.
        place: Vertical place of the bar.
        pieces: Length, colour and hatch of each.
        text_from: Pieces at least this long carry their number.
        text: Format of the numbers.
    """
    right = left = 0.0
    for length, colour, hatch in pieces:
        start = right if length >= 0 else left
        look = {"edgecolor": MUTED, "hatch": hatch, "linewidth": 0.8} if hatch else {}
        axes.barh(place, length, left=start, height=0.74, facecolor=colour, **look)
        if abs(length) > text_from:
            box = {"facecolor": colour, "edgecolor": "none", "pad": 1.0} if hatch else None
            ink = "white" if colour in DARK else INK
            centre = (start + length / 2, place)
            axes.text(*centre, text.format(length), ha="center", va="center", color=ink, size=10, bbox=box)
        if length >= 0:
            right += length
        else:
            left += length
    return right


def bar_labels(axes: Any, places: Sequence[float], labels: Sequence[str]) -> None:
    """Label horizontal bars, the first at the top."""
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")


def marker(label: str, colour: str, shape: str = "o", line: str = "") -> Line2D:
    """Return a legend entry for points, and their line if they have one."""
    return Line2D([], [], color=colour, marker=shape or None, linestyle=line, label=label)


def separate(wanted: Sequence[float], room: float) -> list[float]:
    """Return places at least `room` apart, in the order of the wanted ones and near them.

    Groups that collide are centred on the mean of their members' wanted places.
    """
    groups: list[list[int]] = []

    def bottom(group: Sequence[int]) -> float:
        return sum(wanted[index] for index in group) / len(group) - room * (len(group) - 1) / 2

    for index in sorted(range(len(wanted)), key=lambda index: wanted[index]):
        groups.append([index])
        while len(groups) > 1 and bottom(groups[-2]) + room * len(groups[-2]) > bottom(groups[-1]):
            last = groups.pop()
            groups[-1] += last
    places = [0.0] * len(wanted)
    for group in groups:
        for position, index in enumerate(group):
            places[index] = bottom(group) + position * room
    return places


MAX_TABLE_ROWS = 1000
"""Longer tables would make the page slow to open; `bench lut show` prints the whole LUT."""


@dataclass(frozen=True)
class Section:
    """A section of the report: a figure for two widths of screen, and a table of the numbers in it.

    Columns in `text_columns` (by number) are not numbers; `rest` rows were left out.
    """

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: Collection[int]
    rest: int


def make_section(
    name: str,
    title: str,
    caption: str,
    draw: Callable[[int], Figure],
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    text_columns: Collection[int] = (0,),
) -> Section:
    """Return a section with the first `MAX_TABLE_ROWS` rows; `draw` makes its figure for a width in pixels."""
    caption = caption.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")
    wide, narrow = (
        svg(draw(width_px), f"{name}-{suffix}", title, caption)
        for suffix, width_px in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
    shown = rows[:MAX_TABLE_ROWS]
    return Section(name, title, caption, wide, narrow, headers, shown, text_columns, len(rows) - len(shown))

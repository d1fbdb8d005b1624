"""How all pictures look, and how a matplotlib figure becomes an accessible inline SVG.

A figure is drawn in CSS pixels. Its neutral colours are names of CSS variables in the end, so that the page
decides about light and dark; its text stays text, set in the page's fonts."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from luts.format.files import storage_error
from orchestrator.report.numbers import BASE, MOVED

WIDE_PX = 880
NARROW_PX = 388
"""Each picture is drawn twice: for a desk and for a phone, where the first would be too small to read."""
SMALL_BELOW_PX = 600

LEGEND_HANDLE_PX, LEGEND_CHARACTER_PX = 38, 6.9
"""Room that a legend's entry takes beside its text, and for each character of it, at the size used."""

INK, MUTED, GRID, PAPER = "#1b1c1e", "#6a6d73", "#dcdde0", "#fdfdfc"
BLUE, ORANGE, GREEN, PINK, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
"""Okabe and Ito's palette without its yellow, which is lost on white: told apart by colour-blind readers."""

_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
}
"""Colours that differ between light and dark pages."""

_KINDS = {
    "conv": BLUE,
    "mbconv": ORANGE,
    "mvit.shell": GREEN,
    "mvit.layer": PINK,
    "head.fc": SKY,
    "head.mbpool": RED,
    BASE: MUTED,
    MOVED: "#a3a7ad",
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
    """A colour for each kind of block, the same in all pictures of a report."""
    unknown = sorted(set(kinds) - set(_KINDS))
    return _KINDS | {kind: _SPARE[number % len(_SPARE)] for number, kind in enumerate(unknown)}


@contextmanager
def figure(width_px: float, height_px: float) -> Iterator[Figure]:
    """An empty figure in the report's style, to be filled inside the `with`."""
    with mpl.rc_context(_RC):
        yield Figure(figsize=(width_px / 72, height_px / 72), layout="constrained")


def legend(drawn: Figure, handles: Sequence[Any], width_px: float) -> None:
    """A legend above the picture, in as few rows as its labels leave room for; columns are filled downwards."""
    widths = [LEGEND_HANDLE_PX + LEGEND_CHARACTER_PX * len(handle.get_label()) for handle in handles]
    rows = 1
    while rows < len(widths):
        columns = [max(widths[start : start + rows]) for start in range(0, len(widths), rows)]
        if sum(columns) <= width_px:
            break
        rows += 1
    drawn.legend(handles=list(handles), loc="outside upper left", ncols=-(-len(widths) // rows))


def svg(drawn: Figure, name: str, title: str, description: str) -> Markup:
    """The figure as inline SVG without any outside reference; `name` makes its ids unique in the page."""
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


def save_png(drawn: Figure, path: Path) -> None:
    """Write a picture at twice its size in CSS pixels, on the paper of a light page.

    Raises:
        StorageError: the file can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(_RC):
            drawn.savefig(path, format="png", dpi=144, transparent=False, facecolor=PAPER)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --output") from error


def save_picture(drawn: Figure, path: Path) -> None:
    """Write a picture on white in the format of its suffix, with equal bytes each time. Raises OSError."""
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "blocktime"}):
        drawn.savefig(path, dpi=144, facecolor="white")


def _localise(element: ET.Element, name: str) -> None:
    """Drop namespaces (HTML needs none), prefix ids, put the page's colours and fonts in."""
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


MAX_TABLE_ROWS = 1000
"""Longer tables would make the page slow to open; `bench lut show` has the whole LUT."""


@dataclass(frozen=True)
class Table:
    """Cells as text; columns in `text_columns` (by number) are not numbers. `rest` rows were left out."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: tuple[int, ...] = (0,)
    rest: int = 0


@dataclass(frozen=True)
class Section:
    """`wide` and `narrow` are the same picture for two widths of screen."""

    name: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    table: Table


def make_section(name: str, title: str, caption: str, draw: Callable[[int], Figure], table: Table) -> Section:
    """A section whose picture `draw` makes for a width in pixels."""
    caption = caption.replace(" %", "\N{NO-BREAK SPACE}%").replace(" ms", "\N{NO-BREAK SPACE}ms")
    wide, narrow = (
        svg(draw(width_px), f"{name}-{suffix}", title, caption)
        for suffix, width_px in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
    return Section(name, title, caption, wide, narrow, table)


def make_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], text_columns: tuple[int, ...] = (0,)
) -> Table:
    """The first `MAX_TABLE_ROWS` rows."""
    kept = tuple(tuple(row) for row in rows[:MAX_TABLE_ROWS])
    return Table(tuple(headers), kept, text_columns, len(rows) - len(kept))

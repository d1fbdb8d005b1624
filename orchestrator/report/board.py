"""The board as one HTML page: devices by what the reference network takes on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class BoardRow:
    """A LUT among those of its space that were measured beside the same reference network.

    Attributes:
        lut: Its name.
        reference_id: The network that `reference_ms` is of; rows of another do not compare.
        times: `reference_ms` over that of the fastest row with this reference.
        noise_floor: Between two loads of the reference, relative.
        mape: Of held-out networks, relative; None where none was held out.
        trust: As `bench lut verify` says it; `own` if made here, `packaged`, or `not pulled`.
    """

    lut: str
    model: str
    soc: str
    os: str
    space: str
    variant: str
    runtime: str
    measured: str
    reference_id: str
    reference_ms: float
    times: float
    noise_floor: float
    mape: float | None
    created: str
    trust: str


@dataclass(frozen=True)
class _Group:
    """Rows of one space and reference network, the fastest first; `slowest_ms` is the longest bar."""

    space: str
    reference_id: str
    rows: tuple[BoardRow, ...]

    @property
    def slowest_ms(self) -> float:
        return max(row.reference_ms for row in self.rows)


def render_board(rows: Sequence[BoardRow], place: str) -> str:
    """The page; equal rows give equal text.

    Args:
        rows: In the order of `tasks.board`.
        place: Where the LUTs are.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("orchestrator.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [
        _Group(space, reference, tuple(members))
        for (space, reference), members in groupby(rows, key=lambda row: (row.space, row.reference_id))
    ]
    return environment.get_template("board.html").render(
        groups=groups, place=place, simulated=any(row.measured == "simulated" for row in rows)
    )

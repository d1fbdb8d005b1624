"""Devices side by side: what the reference network takes on each, by the LUTs at hand or those of a place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from luts.format.errors import InvalidArtifactError
from luts.format.store import LutStore, lut_store, read_files
from luts.share.repository import SharedLut, trust
from orchestrator.report.board import BoardRow
from orchestrator.tasks.share import shared_luts

CLAIMED = "not pulled"
"""What is known of a LUT of which only an index tells."""


def make_board(
    url: str | None = None, store: LutStore | None = None, tell: Callable[[str], None] = print
) -> list[BoardRow]:
    """Rows by space, reference network and its latency: of every name the LUT that it means, or a place's newest.

    Args:
        url: A place of shared LUTs; the LUTs at hand without it.
        store: Where those are.
        tell: Told of LUTs that can't be read.

    Raises:
        InvalidArtifactError, StorageError: the place can't be read.
    """
    rows = _shared(url, tell) if url is not None else _at_hand(store or lut_store(), tell)
    return _compared(rows)


def _shared(url: str, tell: Callable[[str], None]) -> list[BoardRow]:
    newest = {lut.name: lut for lut in sorted(shared_luts(url, tell), key=lambda lut: lut.created)}
    return [_row(lut, str(lut), CLAIMED) for lut in newest.values()]


def _at_hand(store: LutStore, tell: Callable[[str], None]) -> list[BoardRow]:
    rows = []
    for name in sorted({ref.name for ref in store.list()}):
        try:
            ref = store.current(name)
            rows.append(_row(SharedLut.of_files(read_files(ref.path)), str(ref), trust(ref.path)))
        except InvalidArtifactError as error:
            tell(f"{name} is left out: {error}")
    return rows


def _row(lut: SharedLut, name: str, trusted: str) -> BoardRow:
    return BoardRow(
        lut=name,
        model=lut.model,
        soc=lut.soc,
        os=f"{lut.os} {lut.os_build}".strip(),
        space=lut.space,
        variant=lut.variant,
        runtime=lut.runtime,
        measured=lut.measured,
        reference_id=lut.reference_id,
        reference_ms=lut.reference_ms,
        times=1.0,
        noise_floor=lut.noise_floor,
        mape=lut.mape,
        created=lut.created,
        trust=trusted,
    )


def _compared(rows: Iterable[BoardRow]) -> list[BoardRow]:
    ordered = sorted(rows, key=lambda row: (row.space, row.reference_id, row.reference_ms, row.lut))
    fastest: dict[tuple[str, str], float] = {}
    for row in ordered:
        fastest.setdefault((row.space, row.reference_id), row.reference_ms)
    return [replace(row, times=row.reference_ms / fastest[row.space, row.reference_id]) for row in ordered]

"""List the LUTs of this machine, and import published tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from luts.format.errors import InvalidArtifactError
from luts.format.store import LutRef, LutStore, is_worse, read_lut, read_meta
from luts.format.table import Column, Table
from luts.published import list_published, read_published, read_table, write_published
from luts.share.repository import trust
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.progress import Progress, silent


class SortBy(StrEnum):
    """Order of a list of LUTs."""

    name = "name"
    latency = "latency"


@dataclass(frozen=True)
class LutRow:
    """One version of a LUT, or a published table.

    Attributes:
        lut: Its name.
        path: Its folder or file.
        current: `newest` or `pinned` if the name without a version means it; else None.
        kind: `measured`, `simulated`, `published` or `broken`.
        broken: Why it can't be read; None otherwise.
        model: Device as it calls itself.
        space: Search space.
        reference_id: The network that `reference_ms` is of.
        reference_ms: Its latency.
        times_fastest: `reference_ms` over that of the fastest current LUT with this space and reference.
        noise_floor: Between two loads of the reference, relative.
        mape: Mean absolute error of predictions of held-out networks, relative; None where none was held out.
        worse_than: The version before, if this one predicts clearly worse; else None.
        created: Date.
        trust: See `bench lut verify`.
    """

    lut: str
    path: str
    current: str | None = None
    kind: str = "broken"
    broken: str | None = None
    model: str = ""
    space: str = ""
    reference_id: str = ""
    reference_ms: float | None = None
    times_fastest: float | None = None
    noise_floor: float | None = None
    mape: float | None = None
    worse_than: str | None = None
    created: str = ""
    trust: str = ""


@dataclass(frozen=True)
class LutList:
    """All LUTs; `problems` are pins that can't be read."""

    rows: tuple[LutRow, ...]
    sort: SortBy
    problems: tuple[str, ...] = ()

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the rows."""
        return [asdict(row) for row in self.rows]

    def report(self) -> Iterator[Table | str]:
        """Yield the table, and notes on worse versions and simulated numbers."""
        by_latency = self.sort is SortBy.latency
        columns = [
            Column("lut", "LUT"),
            Column("current", "by name"),
            Column("model", "device", spare=2),
            Column("kind", "numbers"),
            Column("reference_ms", "reference ms", 3, spare=0 if by_latency else 1),
            *([Column("times_fastest", "x fastest", 2)] if by_latency else []),
            Column("noise_floor", "noise floor", 2, percent=True, spare=2),
            Column("mape", "held-out MAPE", 2, percent=True),
            Column("created", "created", spare=3),
            Column("trust", "trust", spare=4),
        ]
        yield Table("", columns, [row | {"created": row["created"][:10]} for row in self.to_dict()])
        for row in self.rows:
            if row.current and row.worse_than:
                yield f"{row.lut} predicts worse than {row.worse_than}; to use that: bench lut pin {row.worse_than}"
        if by_latency and any(row.kind == "simulated" for row in self.rows):
            yield "SIMULATED rows were not measured on any device"


def list_luts(store: LutStore, sort: SortBy = SortBy.name) -> LutList:
    """List all LUTs of a store and its published tables.

    Args:
        store: Folders of LUTs.
        sort: `latency` keeps the current version of each name and orders them by space, reference and its
            latency, so that devices can be compared.
    """
    refs, problems, current = store.list(), list[str](), set[LutRef]()
    for name in sorted({ref.name for ref in refs}):
        try:
            current.add(store.current(name))
        except InvalidArtifactError as error:
            problems.append(f"{name}: {error}")
    rows = [_row(store, ref, ref in current) for ref in refs]
    if sort is SortBy.latency:
        return LutList(_compared(rows), sort, tuple(problems))
    rows += [_published_row(name, path) for name, path in list_published(store.roots).items()]
    return LutList(tuple(rows), sort, tuple(problems))


def _row(store: LutStore, ref: LutRef, current: bool) -> LutRow:
    row = LutRow(str(ref), str(ref.path))
    try:
        meta = read_lut(ref.path).meta
        before = store.before(ref)
        worse = before is not None and is_worse(meta, read_meta(before.path))
    except InvalidArtifactError as error:
        return replace(row, current="newest" if current else None, broken=str(error))
    pinned = current and store.pinned(ref.name) == ref.version
    return replace(
        row,
        current="pinned" if pinned else "newest" if current else None,
        kind=meta.measured,
        model=meta.device.model,
        space=meta.space,
        reference_id=meta.reference_id,
        reference_ms=meta.reference_ms,
        noise_floor=meta.noise_floor,
        mape=meta.heldout_error.mape if meta.heldout_error else None,
        worse_than=str(before) if worse else None,
        created=meta.created,
        trust=trust(ref.path),
    )


def _published_row(name: str, path: Path) -> LutRow:
    row = LutRow(name, str(path))
    try:
        table = read_published(path)
    except InvalidArtifactError as error:
        return replace(row, broken=str(error))
    return replace(row, model=table.title, space=table.space, kind=table.label, created=table.imported)


def _compared(rows: list[LutRow]) -> tuple[LutRow, ...]:
    """Return the current versions by space, reference and latency, each relative to the fastest."""
    ordered = sorted(
        (row for row in rows if row.current and row.reference_ms is not None),
        key=lambda row: (row.space, row.reference_id, row.reference_ms, row.lut),
    )
    fastest: dict[tuple[str, str], float] = {}
    compared = []
    for row in ordered:
        reference_ms = row.reference_ms or 0.0
        least = fastest.setdefault((row.space, row.reference_id), reference_ms)
        compared.append(replace(row, times_fastest=reference_ms / least))
    return tuple(compared)


@dataclass(frozen=True, kw_only=True)
class ImportOptions(StoreOptions):
    """Options of `bench lut import-published`.

    Attributes:
        table: The published file.
        name: Short name of the device.
        source: Paper or repository that published the numbers.
        licence: Their licence.
        title: Device as named by its source; its short name by default.
        space: Space of the table's block keys.
        variant: Runtime and processor of the measurements.
    """

    table: Path = argument(REQUIRED, "The published file: a JSON object of milliseconds by block.")
    name: str = option(
        REQUIRED, "Short name of the device, such as pixel6.", parse=parse_name, metavar="NAME"
    )
    source: str = option(REQUIRED, "Paper or repository that published the numbers.")
    licence: str = option(REQUIRED, "Licence of the numbers.")
    title: str = option("", "Device as named by its source.", shown="its short name")
    space: str = option("nn-meter-hybrid", "Space of the table's block keys.")
    variant: str = option("tflite-cpu", "Runtime and processor of the measurements.")


def import_published(options: ImportOptions, progress: Progress = silent) -> dict[str, Any]:
    """Import a published table of block latencies, and return facts about it.

    Raises:
        UsageError: an unknown space, or another table has this name.
        InvalidArtifactError: the file is missing or malformed.
        StorageError: it can't be written.
    """
    variant = parse_name(options.variant, "--variant", "tflite-cpu")
    lut = read_table(
        options.table, options.name, options.source, options.licence, options.space, variant, options.title
    )
    path = write_published(lut, options.open_store(progress, create=True).roots[0])
    return {
        "published": str(lut),
        "device": lut.title,
        "numbers": f"{lut.label} by others, without intervals",
        "blocks": len(lut.blocks),
        "source": lut.source,
        "licence": lut.licence,
        "file_sha256": lut.file_sha256,
        "path": str(path),
    }

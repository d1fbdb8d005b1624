"""List, compare and share LUTs, and import published tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from luts.diff import EntryDiff, KindDiff, LutDiff, diff_luts
from luts.format.errors import InvalidArtifactError, UsageError, shorten
from luts.format.schema import LutMeta
from luts.format.store import LutRef, LutStore, is_worse, lut_store, read_lut, read_meta
from luts.format.table import Column, Table
from luts.published import list_published, read_published, read_table, write_published
from luts.share import repository as shared
from luts.share.location import location
from luts.share.repository import Pulled, Repository, SharedLut, trust
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


class DiffView(StrEnum):
    """Rows of a comparison of LUTs, and their order."""

    block = "block"
    kind = "kind"
    rank = "rank"


@dataclass(frozen=True, kw_only=True)
class DiffCommand(StoreOptions):
    """Options of `bench lut diff`.

    Attributes:
        lut: Two or more LUTs; ratios are to the first.
        by: Rows of the table.
    """

    lut: tuple[str, ...] = argument(REQUIRED, "Two or more LUTs; ratios are to the first.", metavar="LUT")
    by: DiffView = option(
        DiffView.block, "Rows: blocks, kinds of blocks, or blocks ordered by difference in rank."
    )


@dataclass(frozen=True)
class LutComparison:
    """Two or more LUTs side by side.

    Attributes:
        diff: Their differences.
        refs: The LUTs' names.
        metas: What their files say about them.
        by: Rows of the table.
    """

    diff: LutDiff
    refs: tuple[LutRef, ...]
    metas: tuple[LutMeta, ...]
    by: DiffView

    @property
    def names(self) -> list[str]:
        """Short names; simulated LUTs are marked."""
        names = zip(short_names(self.refs), self.metas, strict=True)
        return [name + " (simulated)" * (meta.measured == "simulated") for name, meta in names]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of the table, a cell for each LUT and figure."""
        if self.by is DiffView.kind:
            return [_diff_row(row, self.names) for row in self.diff.kinds]
        entries = list(self.diff.entries)
        if self.by is DiffView.rank:
            entries.sort(key=lambda entry: (min(entry.ranks) - max(entry.ranks), entry.ranks))
        return [_diff_row(row, self.names) for row in entries]

    def to_dict(self) -> dict[str, Any]:
        """Return the LUTs and all their differences, which do not depend on `by`."""
        return {"luts": [str(ref) for ref in self.refs], "names": self.names, **asdict(self.diff)}

    def report(self) -> Iterator[Table | str]:
        """Yield the table, and what is known of each LUT."""
        names = self.names
        yield Table("", self._columns(names), self.rows)
        yield (
            f"{len(self.diff.entries)} common entries, intervals overlap for "
            f"{100 * (self.diff.overlap_share or 0):.1f} %"
        )
        for place, (ref, name) in enumerate(zip(self.refs, names, strict=True)):
            line = f"{name}: {ref}"
            if place:
                ratio, tau = self.diff.reference_ratios[place], self.diff.rank_correlations[place]
                line += f"; reference latency over that of {names[0]}: " + (
                    "another model" if ratio is None else f"{ratio:.3f}"
                )
                line += "; ranks: " + ("all equal" if tau is None else f"Kendall tau {tau:.3f}")
            if self.diff.missing[place]:
                line += f"; not in all others: {shorten(self.diff.missing[place])}"
            yield line
        pairs = list(zip(names, self.metas, strict=True))
        fixed = [name for name, meta in pairs if meta.fixed_performance]
        if fixed and len(fixed) < len(pairs):
            yield (
                "measured in fixed performance mode, which slows a phone down, unlike the others: "
                + ", ".join(fixed)
            )
        if simulated := [name for name, meta in pairs if meta.measured == "simulated"]:
            yield f"SIMULATED: not measured on any device: {', '.join(simulated)}"

    def _columns(self, names: Sequence[str]) -> list[Column]:
        first, *others = names
        ms = [Column(f"ms {name}", f"{name} ms", 4) for name in names]
        ratios = [Column(f"ratio {name}", f"{name} / {first}", 3) for name in others]
        if self.by is DiffView.kind:
            return [Column("kind", "kind"), Column("blocks", "blocks"), *ms, *ratios]
        if self.by is DiffView.rank:
            return [Column("key", "block"), *(Column(f"rank {name}", f"{name} rank") for name in names), *ms]
        return [Column("key", "block"), *ms, *ratios, Column("overlap", "intervals overlap")]


def compare_luts(options: DiffCommand, progress: Progress = silent) -> LutComparison:
    """Compare two or more LUTs by block and by kind.

    Raises:
        UsageError: fewer than two LUTs, one that is unknown or given twice, or no block is in all of them.
        InvalidArtifactError: one of them is damaged.
    """
    store = options.open_store(progress)
    refs = tuple(store.resolve(name) for name in options.lut)
    tables = [store.load(ref) for ref in refs]
    diff = diff_luts(*tables)
    if not diff.entries:
        spaces = ", ".join(f"{ref} of {table.meta.space}" for ref, table in zip(refs, tables, strict=True))
        raise UsageError(
            f"no block is in all of them ({spaces}); compare LUTs of one space and resolution",
            code="no_common_block",
        )
    short_names(refs)
    return LutComparison(diff, refs, tuple(table.meta for table in tables), options.by)


def short_names(refs: Sequence[LutRef]) -> list[str]:
    """Return the parts in which the LUTs' names differ, variants without the words that all begin with.

    Raises:
        UsageError: a LUT is given twice.
    """
    if len({ref.path.resolve() for ref in refs}) < len(refs):
        raise UsageError("a LUT is given twice: " + shorten([str(ref) for ref in refs]), code="duplicate_lut")
    devices, spaces, variants, versions = zip(*(ref.parts for ref in refs), strict=True)
    parts = devices, spaces, _without_common(variants), versions
    differing = [part for part in parts if len(set(part)) > 1]
    if not differing:
        return [str(ref.path) for ref in refs]
    return ["/".join(name) for name in zip(*differing, strict=True)]


def _without_common(names: Sequence[str]) -> list[str]:
    words = [name.split("-") for name in names]
    while min(map(len, words)) > 1 and len({name[0] for name in words}) == 1:
        words = [name[1:] for name in words]
    return ["-".join(name) for name in words]


def _diff_row(row: EntryDiff | KindDiff, names: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, value in asdict(row).items():
        if isinstance(value, tuple):
            cells |= {f"{_FIGURES[name]} {lut}": cell for lut, cell in zip(names, value, strict=True)}
        else:
            cells[name] = value
    return cells


_FIGURES = {"ms": "ms", "ratios": "ratio", "ranks": "rank"}


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


Warn = Callable[[str], None]


def push_lut(lut: str, url: str, store: LutStore | None = None, warn: Warn = print) -> tuple[SharedLut, bool]:
    """Verify a LUT and upload it; return its entry in the repository, and whether it is new there.

    Args:
        lut: Its name or folder.
        url: A folder, `s3://bucket/folder` or `hf://datasets/user/name`.
        store: LUTs of this machine.
        warn: Called with one line about each entry of the repository that can't be read.

    Raises:
        UsageError: an unknown LUT, or the repository is read-only.
        InvalidArtifactError: it does not verify.
        StorageError: the repository can't be reached or written.
    """
    ref = (store or lut_store()).resolve(lut)
    return shared.push(Repository(location(url), warn), ref.path)


def pull_lut(
    url: str,
    lut: str,
    store: LutStore | None = None,
    public_key: Path | None = None,
    verify: bool = True,
    warn: Warn = print,
) -> Pulled:
    """Download a LUT, verified, as the next version of its name.

    Args:
        url: As in `push_lut`, or `https://`.
        lut: `device/space/variant`, parts of it that fit one name, or the first digits of its digest.
        store: LUTs of this machine; it is written to the first folder.
        public_key: The key that must have signed it.
        verify: Whether its entries are recomputed; otherwise it is marked `unverified`.
        warn: Called with one line about each entry of the repository that can't be read.

    Raises:
        UsageError: no LUT, or several, have such a name.
        InvalidArtifactError: it is damaged, does not verify, or is not signed by the key; nothing is written.
        StorageError: the repository can't be reached.
    """
    return shared.pull(Repository(location(url), warn), lut, store or lut_store(), public_key, verify)


def shared_luts(url: str, warn: Warn = print) -> list[SharedLut]:
    """List all LUTs of a repository as its index describes them. Raises StorageError."""
    return Repository(location(url), warn).luts()

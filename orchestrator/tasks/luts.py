"""LUTs of this machine: listed, shown, pinned, estimated again and verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from luts.format.errors import InvalidArtifactError, UsageError, shorten, unknown
from luts.format.lut import Lut
from luts.format.schema import Entry, UnitVariation
from luts.format.store import LutRef, LutStore, is_worse, read_lut, read_meta
from luts.format.table import Column, Facts, Table
from luts.published import list_published, read_published
from luts.share.repository import note_verified, sign_lut, trust
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.journal.conditions import describe_conditions
from orchestrator.tasks.options import REQUIRED, LutOptions, StoreOptions, option
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.progress import Note, Progress, silent


class SortBy(StrEnum):
    """Order of a list of LUTs."""

    name = "name"
    latency = "latency"


@dataclass(frozen=True, kw_only=True)
class ListOptions(StoreOptions):
    """List all LUTs and published tables.

    The column «by name» marks the version that a name without a version means: the pinned one, else the
    newest.
    """

    sort: SortBy = option(
        SortBy.name, "Order of the LUTs; `latency` compares devices by the reference network of a space."
    )


@dataclass(frozen=True)
class LutRow:
    """One version of a LUT, or a published table.

    Attributes:
        current: `newest` or `pinned` if the name without a version means it; else None.
        kind: `measured`, `simulated`, `published` or `broken`; then `broken` says why it can't be read.
        model: Device as it calls itself.
        reference_id: The network that `reference_ms` is of.
        times_fastest: `reference_ms` over that of the fastest current LUT with this space and reference.
        noise_floor: Between two loads of the reference, relative.
        mape: Mean absolute error of predictions of held-out networks, relative; None where none was held out.
        worse_than: The version before, if this one predicts clearly worse; else None.
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
    """All LUTs of this machine."""

    rows: tuple[LutRow, ...]
    sort: SortBy

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


def list_luts(options: ListOptions, progress: Progress = silent) -> LutList:
    """List all LUTs of this machine and its published tables; damaged ones give a note.

    Sorted by latency, it is the current versions by space, reference and its latency, to compare devices.
    """
    store = options.open_store(progress)
    refs, problems, current = store.list(), list[str](), set[LutRef]()
    for name in sorted({ref.name for ref in refs}):
        try:
            current.add(store.current(name))
        except InvalidArtifactError as error:
            problems.append(f"{name}: {error}")
    rows = [_row(store, ref, ref in current) for ref in refs]
    if options.sort is SortBy.latency:
        rows = _compared(rows)
    else:
        rows += [_published_row(name, path) for name, path in list_published(store.roots).items()]
    for problem in [f"{row.lut} is broken: {row.broken}" for row in rows if row.broken] + problems:
        progress(Note(f"warning: {problem}"))
    return LutList(tuple(rows), options.sort)


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


def _compared(rows: list[LutRow]) -> list[LutRow]:
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
    return compared


@dataclass(frozen=True, kw_only=True)
class LutShowOptions(LutOptions):
    """Show a LUT's provenance and its entries, costliest first."""

    kind: str | None = option(None, "Only blocks of this kind, e.g. mvit.layer.")


@dataclass(frozen=True)
class LutView:
    """What people read of a LUT: its provenance, and its entries or some of them, costliest first."""

    name: str
    lut: Lut
    kind: str | None = None

    COLUMNS: ClassVar = (
        Column("key", "block", key=True),
        Column("ms", "ms", 4),
        Column("ci_low", "95 % low", 4),
        Column("ci_high", "high", 4),
        Column("removal_ms", "removal ms", 4, spare=1),
        Column("loads", "loads", spare=3),
        Column("rounds", "rounds", spare=5),
        Column("method", "method", spare=4),
    )
    OPTIONAL: ClassVar = (
        Column("identified", "identified", spare=2),
        Column("measured_share", "measured here", 2, spare=2),
        Column("migrated_operations", "ops migrated by removal", spare=2),
    )
    """Shown if any entry has a value."""

    @property
    def entries(self) -> list[Entry]:
        """The entries, costliest first."""
        entries = [entry for entry in self.lut.entries if self.kind in (None, entry.kind)]
        return sorted(entries, key=lambda entry: (-entry.ms, entry.key))

    def to_dict(self) -> dict[str, Any]:
        """Return name, provenance and entries."""
        rows = [entry.model_dump() for entry in self.entries]
        return {"lut": self.name, "meta": self.lut.meta.model_dump(), "entries": rows}

    def report(self) -> Iterator[Table | Facts | str]:
        """Yield the provenance, the entries, and what to know about them."""
        yield Facts(self.name, provenance(self.lut))
        yield ""
        yield from self.entries_report()

    def entries_report(self) -> Iterator[Table | str]:
        """Yield the entries, and notes on those that are sums or whose removal moved other operations."""
        rows = [entry.model_dump() for entry in self.entries]
        optional = [column for column in self.OPTIONAL if any(row[column.name] is not None for row in rows)]
        yield Table("", [*self.COLUMNS, *optional], rows)
        if sums := sum(entry.identified == "sum" for entry in self.entries):
            yield (
                f"{sums} entries are known only as a sum with others: how it is divided rests on the prior; "
                "predictions of the space's networks do not depend on it"
            )
        if migrated := sum(bool(entry.migrated_operations) for entry in self.entries):
            yield (
                f"{migrated} removals moved operations of other blocks to another compute unit: their removal ms "
                "is not the block's cost, and the fit leaves them out"
            )


def show_lut(options: LutShowOptions, progress: Progress = silent) -> LutView:
    """Read a LUT; raise UsageError if it has no block of the kind."""
    store = options.open_store(progress)
    ref = store.resolve(options.lut)
    lut = store.load(ref)
    kinds = sorted({entry.kind for entry in lut.entries})
    if options.kind is not None and options.kind not in kinds:
        raise UsageError(f"{ref}: " + unknown("kind", options.kind, kinds), code="unknown_kind")
    return LutView(str(ref), lut, options.kind)


def provenance(lut: Lut) -> dict[str, str]:
    """Return the origin and the accuracy of a LUT as named facts for people."""
    meta = lut.meta
    reference = f"{meta.reference_ms:.3f} ms ({meta.reference_ci_low:.3f} to {meta.reference_ci_high:.3f})"
    measured = [entry for entry in lut.entries if entry.method != "prior"]
    error = meta.heldout_error
    heldout = (
        f"MAPE {100 * error.mape:.2f} %, {100 * error.within_5:.0f} % within 5 %, of {error.models} models"
        if error
        else "no model was held out"
    )
    fitted = sum(model.fitted for model in lut.models)
    heldout_models = sum(model.split == "heldout" for model in lut.models)
    left_out = len(lut.models) - fitted - heldout_models
    return {
        "device": f"{meta.device.model}, {meta.device.soc}, {meta.device.os} {meta.device.os_build}",
        "numbers": meta.measured,
        "runtime": meta.versions.runtime,
        "exporter": meta.versions.exporter,
        "agent": meta.versions.agent,
        **describe_conditions(meta),
        "created": meta.created,
        "models": f"{fitted} fitted, {heldout_models} held out"
        + (f", {left_out} removals left out because other operations moved" if left_out else "")
        + f", {lut.samples.num_rows:,} samples",
        **_failures(meta.failures),
        "entries": f"{len(lut.entries)}, {len(measured)} of them measured"
        + (", the others from the prior only" if len(measured) < len(lut.entries) else ""),
        "reference": f"{meta.reference_id}, {reference}",
        "noise floor": f"{100 * meta.noise_floor:.2f} % between two loads of the reference",
        **_unit_variation(meta.unit_spread),
        "held out": heldout,
        **_learned_from(lut),
    }


def _unit_variation(variation: UnitVariation | None) -> dict[str, str]:
    """Return how much units of a device class differ, where several shared the measurement."""
    if variation is None:
        return {}
    figures = (
        (variation.reference, "in the reference's ms"),
        (variation.ratio, "in a network's ratio to it"),
    )
    known = [f"{100 * sd:.2f} % {what}" for sd, what in figures if sd is not None]
    return {"units": f"{variation.units}" + (f", which differ by {', '.join(known)} (sd)" if known else "")}


def _learned_from(lut: Lut) -> dict[str, str]:
    meta = lut.meta
    if not meta.sources:
        return {}
    used = [source for source in meta.sources if source.name not in meta.dropped_sources]
    names = [f"{source.name} ({source.digest[:12]}, {source.measured})" for source in used]
    lines = {"learned from": ", ".join(names) or "no other LUT: the measurements support none"}
    shares = [entry.measured_share for entry in lut.entries if entry.measured_share is not None]
    if shares:
        lines["measured here"] = (
            f"{100 * sum(shares) / len(shares):.0f} % of the uncertainty that other LUTs leave, mean over entries"
        )
    if meta.dropped_sources:
        lines["dropped"] = "; ".join(
            f"{name} contradicts the measurements, which are e^{gain:.1f} times likelier without it"
            if gain > 0
            else f"{name} has no clear support: the measurements are only e^{-gain:.1f} times likelier with it"
            for name, gain in meta.dropped_sources.items()
        )
    if (width := meta.conformal.posterior_half_width_95) is not None and meta.conformal.half_width_95 is None:
        lines["predictions"] = (
            f"within {100 * width:.1f} % (95 %), from the posterior, calibrated by leave-one-out predictions: "
            "fewer than 19 networks are held out"
        )
    return lines


def _failures(failures: Mapping[str, str]) -> dict[str, str]:
    if not failures:
        return {}
    name, reason = next(iter(failures.items()))
    reason = reason.splitlines()[0] if reason else ""
    return {"left out": f"{shorten(list(failures), 3)}; {name}: {reason}"}


@dataclass(frozen=True, kw_only=True)
class PinOptions(LutOptions):
    """Make a LUT's name without a version mean this version instead of the newest."""

    off: bool = option(False, "Remove the pin; the name means its newest version again.")


def pin_lut(options: PinOptions, progress: Progress = silent) -> str:
    """Pin a version, or remove the pin; return what the name means now."""
    store, lut = options.open_store(progress), options.lut
    if options.off:
        exact = {ref.name for ref in store.list()} & {lut, lut.rpartition("/")[0]}
        name = exact.pop() if exact else store.resolve(lut).name
        store.unpin(name)
        return f"{name} means {store.current(name)}; nothing is pinned"
    ref = store.resolve(lut)
    store.pin(ref)
    return f"{ref} is pinned"


@dataclass(frozen=True, kw_only=True)
class RebuildOptions(LutOptions):
    """Write a new version of a LUT, estimated again from its samples by this version of bench."""

    name: str = option("", "New name for its device.", parse=parse_name, metavar="NAME")


def rebuild_lut(options: RebuildOptions, progress: Progress = silent) -> str:
    """Estimate a LUT again from its samples; return the new version's folder."""
    store = options.open_store(progress)
    return str(store.write(rebuild(store.load(options.lut), options.name)))


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """The public key of a signature."""

    key: Path | None = option(None, "Public Ed25519 key (PEM); a LUT that it did not sign is refused.")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(LutOptions, KeyOptions):
    """Check all files of a LUT and recompute its entries from the samples.

    With --key, check its signature.
    """


def verify(options: VerifyOptions, progress: Progress = silent) -> Facts:
    """Verify a LUT and, by a key, its signature; raise InvalidArtifactError where it does not hold."""
    store = options.open_store(progress)
    ref = store.resolve(options.lut)
    verified = verify_lut(ref.path)
    sources = check_sources(verified, store)
    facts = {
        "lut": str(ref),
        "verdict": "valid: digests match, all entries follow from the samples",
        "trust": note_verified(ref.path, options.key),
        "entries": len(verified.entries),
        "models": len(verified.models),
        "samples": verified.samples.num_rows,
    }
    if sources:
        facts["sources"] = "; ".join(map(str, sources))
    return Facts("", facts)


@dataclass(frozen=True, kw_only=True)
class SignOptions(LutOptions):
    """Sign a LUT: a detached Ed25519 signature of its lut.json, which has the digests of its other files."""

    key: Path = option(REQUIRED, "Private Ed25519 key (PEM) of openssl genpkey.")


def sign(options: SignOptions, progress: Progress = silent) -> str:
    """Write the signature next to the LUT's files; return its path."""
    return str(sign_lut(options.open_store(progress).resolve(options.lut), options.key))

"""Choose the LUTs that a profile learns from, and check them before anything is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luts.estimate.sources import SourceEntries, source_from_lut
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.operators import OPERATORS
from luts.format.schema import MAX_SOURCES, TransferSource
from luts.format.store import LutRef, LutStore, digest_of
from luts.published import FOLDER, PublishedLut, load_published_lut
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.operators import read_operators
from orchestrator.tasks.models import export_possible
from orchestrator.tasks.progress import Note, Progress, silent

NONE, BEST = "none", "best"


@dataclass(frozen=True)
class LutSource:
    """A LUT or published table to learn from: its entries, and where they come from.

    For a search space, a LUT of `operators` has no entries before `covering` prices them.
    """

    entries: SourceEntries
    digest: str
    measured: Literal["measured", "simulated", "published"]
    operators: Lut | None = None

    @classmethod
    def of_lut(cls, ref: LutRef, lut: Lut, space: str) -> LutSource:
        """Return a LUT as a source for one of the space."""
        operators = lut if lut.meta.space != space else None
        entries = SourceEntries(str(ref), {}) if operators else source_from_lut(str(ref), lut)
        return cls(entries, digest_of(ref), lut.meta.measured, operators)

    @classmethod
    def of_table(cls, table: PublishedLut) -> LutSource:
        """Return a published table as a source; its entries have no standard errors and no base."""
        return cls(SourceEntries(str(table), table.entry_ms), table.digest, table.label)

    def stored(self, keys: Sequence[str]) -> TransferSource:
        """Return the source as a LUT of these keys stores it."""
        entries = self.entries
        return TransferSource(
            name=entries.name,
            digest=self.digest,
            measured=self.measured,
            base_ms=entries.base_ms,
            transfer_ms_per_mib=entries.transfer_ms_per_mib,
            entry_ms=tuple(entries.entry_ms.get(key) for key in keys),
            entry_se=tuple(entries.entry_se.get(key) for key in keys) if entries.entry_se else (),
        )


@dataclass(frozen=True)
class Sources:
    """The sources of a profile; `named`: the user named them, so that the plan rests on them too."""

    each: tuple[LutSource, ...] = ()
    named: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all sources."""
        return tuple(source.entries.name for source in self.each)

    def stored_for(self, keys: Collection[str]) -> tuple[TransferSource, ...]:
        """Return the sources as a LUT of these keys stores them."""
        return tuple(source.stored(sorted(keys)) for source in self.each)

    def priors(self) -> tuple[SourceEntries, ...]:
        """Return the sources for the joint fit; those of operators once their blocks are priced."""
        return tuple(source.entries for source in self.each if source.entries.entry_ms)


NO_SOURCES = Sources()


def find_sources(
    store: LutStore, named: str | None, *, space: str, device: str, variant: str, simulated: bool
) -> Sources:
    """Return the LUTs of `--from`, for a new LUT of the space, device and variant.

    `named` are names separated by commas, `none`, or `best`, which None means: the most accurate of the space. Only
    a simulated device learns from simulated LUTs.

    Raises:
        UsageError: an unknown LUT, or more than `MAX_SOURCES`.
        InvalidArtifactError: one of another space, of a simulated device, given twice, or itself learned from
            a version of the new LUT.
    """
    if named == NONE or (space == OPERATORS and named in (None, BEST)):
        return NO_SOURCES
    if named in (None, BEST):
        best = None if simulated else _best(store, space, device, variant)
        return Sources((LutSource.of_lut(best, store.load(best), space),) if best else ())
    names = [name.strip() for name in str(named).split(",") if name.strip()]
    if not names:
        raise UsageError(
            "--from names no LUT; give LUT[,LUT...] (see bench lut list), best or none", code="no_source"
        )
    if len(names) > MAX_SOURCES:
        raise UsageError(
            f"--from names {len(names)} LUTs; give at most {MAX_SOURCES}", code="too_many_sources"
        )
    found: dict[str, LutSource] = {}
    for name in names:
        if name.startswith(f"{FOLDER}/"):
            table = load_published_lut(name, store.roots)
            _check_once(str(table), found)
            _check_space(str(table), table.space, space)
            found[str(table)] = LutSource.of_table(table)
            continue
        ref = store.resolve(name)
        _check_once(str(ref), found)
        lut = store.load(ref)
        _check(store, ref, lut, space, f"{device}/{space}/{variant}", simulated)
        found[str(ref)] = LutSource.of_lut(ref, lut, space)
    return Sources(tuple(found.values()), named=True)


def _check_once(name: str, known: Collection[str]) -> None:
    if name in known:
        raise InvalidArtifactError(
            f"--from: {name} is given twice; its entries would count twice", code="duplicate_source"
        )


def _check_space(name: str, of: str, space: str) -> None:
    if of not in (space, OPERATORS):
        fitting = " or of ".join(dict.fromkeys((space, OPERATORS)))
        raise InvalidArtifactError(
            f"--from: {name} is of the space {of}, not {space}; give a LUT of {fitting} (bench lut list), or none",
            code="wrong_space",
        )


def _check(store: LutStore, ref: LutRef, lut: Lut, space: str, made: str, simulated: bool) -> None:
    _check_space(str(ref), lut.meta.space, space)
    if lut.meta.measured == "simulated" and not simulated:
        raise InvalidArtifactError(
            f"--from: {ref} is of a simulated device; simulated numbers never enter a real device's LUT",
            code="simulated_source",
        )
    if any(name.startswith(f"{made}/") for name in _learned_from(store, lut)):
        raise InvalidArtifactError(
            f"--from: {ref} was itself learned from {made}, whose measurements would count twice; give another",
            code="circular_source",
        )


def _learned_from(store: LutStore, lut: Lut) -> set[str]:
    """Return the names of all LUTs that it rests on, with its sources' sources as far as they are available."""
    found, left = set[str](), [source.name for source in lut.meta.sources]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(UsageError, InvalidArtifactError):
            left += [source.name for source in store.load(store.resolve(name)).meta.sources]
    return found


def _best(store: LutStore, space: str, device: str, variant: str) -> LutRef | None:
    """Return the LUT of the space and runtime with the smallest held-out error, preferably of the same device."""
    family = variant.split("-")[0]
    names = {ref.name for ref in store.list() if ref.space == space and ref.variant.split("-")[0] == family}
    ranked = []
    for name in sorted(names - {f"{device}/{space}/{variant}"}):
        try:
            ref = store.current(name)
            lut = store.load(ref)
            _check(store, ref, lut, space, f"{device}/{space}/{variant}", simulated=False)
        except InvalidArtifactError:
            continue
        if error := lut.meta.heldout_error:
            ranked.append((ref.device != device, error.mape, ref))
    return min(ranked)[2] if ranked else None


def covering(
    sources: Sources, keys: Collection[str], workers: int | None = None, progress: Progress = silent
) -> Sources:
    """Return the sources that cover enough of the blocks; those of operators with the blocks priced.

    Raises:
        UsageError: one that the user named covers fewer than half of them.
    """
    priced = [
        replace(source, entries=price_blocks(source.entries.name, source.operators, keys, workers, progress))
        if source.operators
        else source
        for source in sources.each
    ]
    if sources.named:
        for source in priced:
            source.entries.check(list(keys))
        return replace(sources, each=tuple(priced))
    return Sources(tuple(source for source in priced if source.entries.covers(list(keys))))


def price_blocks(
    name: str, lut: Lut, keys: Collection[str], workers: int | None, progress: Progress
) -> SourceEntries:
    """Return blocks as a LUT of operators prices them, each exported alone; without those that can't be exported.

    The call of the delegate, and changes of layout at both ends of a block, are not parts of a network's block.
    """
    model, variant = lut.operator_model, Variant.parse(lut.meta.variant)
    assert model is not None
    precision = "fp32" if variant.is_simulated else variant.precision
    specs = {key: ExportSpec(blocks=(key,), precision=precision) for key in sorted(keys)}
    progress(Note(f"pricing {len(specs)} blocks by their operators from {name}"))
    found, se = dict[str, float](), dict[str, float]()
    for key, artifact in export_possible(specs, workers, progress)[0].items():
        inside = [each for each in read_operators(artifact.path) if each.kind != "border"]
        first = int(bool(inside) and inside[0].kind == "transpose")
        last = len(inside) - int(len(inside) > first and inside[-1].kind == "transpose")
        if blocks := [each.key for each in inside[first:last]]:
            _, ms, _, log_sd = model.price_network(blocks)
            found[key] = float(ms.sum())
            se[key] = found[key] * log_sd
    return SourceEntries(name, found, entry_se=se)

"""Choose the LUTs that a profile learns from, and check them before anything is measured."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from luts.estimate.sources import SourceEntries, source_from_lut
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.schema import MAX_SOURCES, TransferSource
from luts.format.store import LutRef, LutStore, digest_of
from luts.published import FOLDER, PublishedLut, load_published_lut

NONE, BEST = "none", "best"


@dataclass(frozen=True)
class Sources:
    """LUTs and published tables to learn from.

    Attributes:
        luts: LUTs by reference.
        named: Whether the user named them, so that the plan rests on them too.
        tables: Published tables.
    """

    luts: dict[LutRef, Lut] = field(default_factory=dict)
    named: bool = False
    tables: tuple[PublishedLut, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all sources."""
        return (*map(str, self.luts), *map(str, self.tables))

    def stored_for(self, keys: Collection[str]) -> tuple[TransferSource, ...]:
        """Return the sources as a LUT of these keys stores them."""
        digests = [*map(digest_of, self.luts), *(table.digest for table in self.tables)]
        measured = [
            *(lut.meta.measured for lut in self.luts.values()),
            *(table.label for table in self.tables),
        ]
        return tuple(
            _stored(*one, sorted(keys)) for one in zip(self.priors(), digests, measured, strict=True)
        )

    def priors(self) -> tuple[SourceEntries, ...]:
        """Return the sources for the joint fit; published entries have no standard errors and no base."""
        learned = [source_from_lut(str(ref), lut) for ref, lut in self.luts.items()]
        return (*learned, *(SourceEntries(str(table), table.entry_ms) for table in self.tables))


NO_SOURCES = Sources()


def find_sources(
    store: LutStore, named: str | None, *, space: str, device: str, variant: str, simulated: bool
) -> Sources:
    """Return the LUTs of `--from`.

    Args:
        store: LUTs of this machine.
        named: Names separated by commas, `none`, or `best`, which None means: the most accurate of the space.
        space: The profiled space.
        device: Name of the new LUT's device.
        variant: Its variant.
        simulated: Whether the device is simulated: only such a device learns from simulated LUTs.

    Raises:
        UsageError: an unknown LUT, or more than `MAX_SOURCES`.
        InvalidArtifactError: one of another space, of a simulated device, given twice, or itself learned from
            a version of the new LUT.
    """
    if named == NONE:
        return Sources()
    if named in (None, BEST):
        best = None if simulated else _best(store, space, device, variant)
        return Sources({best: store.load(best)} if best else {})
    names = [name.strip() for name in str(named).split(",") if name.strip()]
    if not names:
        raise UsageError(
            "--from names no LUT; give LUT[,LUT...] (see bench lut list), best or none", code="no_source"
        )
    if len(names) > MAX_SOURCES:
        raise UsageError(
            f"--from names {len(names)} LUTs; give at most {MAX_SOURCES}", code="too_many_sources"
        )
    luts: dict[LutRef, Lut] = {}
    tables: dict[str, PublishedLut] = {}
    for name in names:
        if name.startswith(f"{FOLDER}/"):
            table = load_published_lut(name, store.roots)
            _check_once(str(table), tables)
            _check_space(str(table), table.space, space)
            tables[str(table)] = table
            continue
        ref = store.resolve(name)
        _check_once(ref, luts)
        lut = luts[ref] = store.load(ref)
        _check(store, ref, lut, space, f"{device}/{space}/{variant}", simulated)
    return Sources(luts, named=True, tables=tuple(tables.values()))


def _check_once(name: object, known: Collection[object]) -> None:
    if name in known:
        raise InvalidArtifactError(
            f"--from: {name} is given twice; its entries would count twice", code="duplicate_source"
        )


def _check_space(name: str, of: str, space: str) -> None:
    if of != space:
        raise InvalidArtifactError(
            f"--from: {name} is of the space {of}, not {space}; give a LUT of {space} (bench lut list), or none",
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


def covering(sources: Sources, keys: Collection[str]) -> Sources:
    """Return the sources that cover enough of the blocks.

    Raises:
        UsageError: one that the user named covers fewer than half of them.
    """
    if sources.named:
        for source in sources.priors():
            source.check(list(keys))
        return sources
    kept = {
        ref: lut for ref, lut in sources.luts.items() if source_from_lut(str(ref), lut).covers(list(keys))
    }
    return Sources(kept)


def _stored(
    source: SourceEntries,
    digest: str,
    measured: Literal["measured", "simulated", "published"],
    keys: Sequence[str],
) -> TransferSource:
    return TransferSource(
        name=source.name,
        digest=digest,
        measured=measured,
        base_ms=source.base_ms,
        transfer_ms_per_mib=source.transfer_ms_per_mib,
        entry_ms=tuple(source.entry_ms.get(key) for key in keys),
        entry_se=tuple(source.entry_se.get(key) for key in keys) if source.entry_se else (),
    )

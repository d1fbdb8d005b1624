"""Which other LUTs a profile learns from, checked before anything is measured."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from luts.estimate.sources import FEWEST_SHARED, Source, source_of
from luts.format.codec import META_FILE
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.schema import TransferSource
from luts.format.store import LutRef, LutStore, read_files
from luts.format.values import MAX_SOURCES

NONE, BEST = "none", "best"


@dataclass(frozen=True)
class Sources:
    """LUTs by reference, in the order given. `named`: by the user, so that the plan rests on them too."""

    luts: dict[LutRef, Lut] = field(default_factory=dict)
    named: bool = False

    def kept_with(self, keys: Collection[str]) -> tuple[TransferSource, ...]:
        """What a LUT of these keys keeps of them."""
        return tuple(_kept(ref, lut, sorted(keys)) for ref, lut in self.luts.items())

    def priors(self) -> tuple[Source, ...]:
        """As the estimation takes them."""
        return tuple(source_of(str(ref), lut) for ref, lut in self.luts.items())


def find_sources(
    store: LutStore, named: str | None, *, space: str, device: str, variant: str, simulated: bool
) -> Sources:
    """The LUTs of `--from`: those named with commas between, the best one at hand for `best`, none for `none`.

    Args:
        store: Where they are looked for.
        named: The option; None is `none`.
        space: That is profiled.
        device: Name of the LUT to be made.
        variant: Its variant.
        simulated: Whether the device is made up: only such a one learns from made-up LUTs.

    Raises:
        UsageError: no such LUT, or more than `MAX_SOURCES`.
        InvalidArtifactError: one of another space, of a made-up device, given twice, or itself learned from the
            LUTs that are to be made.
    """
    if named in (None, NONE):
        return Sources()
    if named == BEST:
        best = None if simulated else _best(store, space, device, variant)
        return Sources({best: store.load(best)} if best else {})
    refs = [store.resolve(name.strip()) for name in named.split(",") if name.strip()]
    if not refs:
        raise UsageError("--from names no LUT; give LUT[,LUT...] as bench lut list shows them, best or none")
    if len(refs) > MAX_SOURCES:
        raise UsageError(f"--from names {len(refs)} LUTs; {MAX_SOURCES} are the most")
    luts: dict[LutRef, Lut] = {}
    for ref in refs:
        if ref in luts:
            raise InvalidArtifactError(f"--from: {ref} is given twice; its entries would count twice")
        lut = luts[ref] = store.load(ref)
        _check(ref, lut, space, f"{device}/{space}/{variant}", simulated)
    return Sources(luts, named=True)


def _check(ref: LutRef, lut: Lut, space: str, made: str, simulated: bool) -> None:
    if lut.meta.space != space:
        raise InvalidArtifactError(
            f"--from: {ref} is of the space {lut.meta.space}, not {space}; "
            f"give a LUT of {space} (bench lut list), or none"
        )
    if lut.meta.measured == "simulated" and not simulated:
        raise InvalidArtifactError(
            f"--from: {ref} is of a simulated device; nothing simulated enters a real device's LUT"
        )
    if any(source.name.startswith(f"{made}/") for source in lut.meta.sources):
        raise InvalidArtifactError(
            f"--from: {ref} was itself learned from {made}, whose measurements would count twice; give another"
        )


def _best(store: LutStore, space: str, device: str, variant: str) -> LutRef | None:
    """Of the same space and runtime family: of the same device if there is one, then the least held-out error."""
    family = variant.split("-")[0]
    names = {ref.name for ref in store.list() if ref.space == space and ref.variant.split("-")[0] == family}
    ranked = []
    for name in sorted(names - {f"{device}/{space}/{variant}"}):
        try:
            ref = store.taken(name)
            lut = store.load(ref)
            _check(ref, lut, space, f"{device}/{space}/{variant}", simulated=False)
        except InvalidArtifactError:
            continue
        if error := lut.meta.heldout_error:
            ranked.append((ref.device != device, error.mape, ref))
    return min(ranked)[2] if ranked else None


def covering(sources: Sources, keys: Collection[str]) -> Sources:
    """Without those that nobody named and that lack more than half of the blocks."""
    if sources.named:
        return sources
    kept = {
        ref: lut
        for ref, lut in sources.luts.items()
        if sum(entry.key in keys for entry in lut.entries) >= FEWEST_SHARED * len(keys)
    }
    return Sources(kept)


def _kept(ref: LutRef, lut: Lut, keys: Sequence[str]) -> TransferSource:
    ms = {entry.key: entry.ms for entry in lut.entries}
    return TransferSource(
        name=str(ref),
        digest=hashlib.sha256(read_files(ref.path)[META_FILE]).hexdigest(),
        measured=lut.meta.measured,
        base_ms=lut.meta.base_ms,
        transfer_ms_per_mib=lut.meta.transfer_ms_per_mib,
        entry_ms=tuple(ms.get(key) for key in keys),
    )

"""Are a LUT's sources what it says? Those that are at hand are compared, entry by entry."""

from __future__ import annotations

from dataclasses import dataclass

from luts.format.errors import InvalidArtifactError
from luts.format.lut import Lut
from luts.format.schema import TransferSource
from luts.format.store import LutRef, LutStore, digest_of


@dataclass(frozen=True)
class SourceCheck:
    """A source of a LUT; `ref`: the LUT here that has its digest and its entries, None where none is at hand."""

    name: str
    digest: str
    ref: LutRef | None

    def __str__(self) -> str:
        if self.ref is None:
            return f"{self.name} ({self.digest[:12]}) not at hand, its entries are taken as lut.json has them"
        return f"{self.name} compared with {self.ref}"


def check_sources(lut: Lut, store: LutStore) -> list[SourceCheck]:
    """Each source, compared with the LUT of its digest where `store` has that.

    Verification needs none of them: a LUT keeps the entries that it was learned from.

    Raises:
        InvalidArtifactError: a LUT of that digest is at hand and has other entries.
    """
    if not lut.meta.sources:
        return []
    here = {digest_of(ref): ref for ref in store.list()}
    checks = []
    for source in lut.meta.sources:
        ref = here.get(source.digest)
        if ref is not None:
            _compare(lut, source, store.load(ref), ref)
        checks.append(SourceCheck(source.name, source.digest, ref))
    return checks


def _compare(lut: Lut, source: TransferSource, told: Lut, ref: LutRef) -> None:
    ms = {entry.key: entry.ms for entry in told.entries}
    kept = zip(lut.entries, source.entry_ms, strict=True)
    wrong = next((entry.key for entry, value in kept if value != ms.get(entry.key)), "")
    terms = (source.measured, source.base_ms, source.transfer_ms_per_mib)
    if terms != (told.meta.measured, told.meta.base_ms, told.meta.transfer_ms_per_mib):
        wrong = wrong or "base and transfer"
    if wrong:
        raise InvalidArtifactError(
            f"lut.json: of its source {source.name} it has another {wrong} than {ref}, which has that digest; "
            "it was edited, take it from where it was made"
        )

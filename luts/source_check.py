"""Are a LUT's sources what it says? Those that are at hand are compared, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from luts.format.errors import InvalidArtifactError
from luts.format.lut import Lut
from luts.format.schema import TransferSource
from luts.format.store import LutStore, digest_of
from luts.published_lut import list_published, read_published


@dataclass(frozen=True)
class SourceCheck:
    """A source of a LUT; `here`: what was found that has its digest and entries, "" where nothing is at hand."""

    name: str
    digest: str
    here: str

    def __str__(self) -> str:
        if not self.here:
            return f"{self.name} ({self.digest[:12]}) not at hand, its entries are taken as lut.json has them"
        return f"{self.name} compared with {self.here}"


@dataclass(frozen=True)
class _Told:
    """What a LUT or a published table says: who it is, its terms and entries."""

    name: str
    terms: tuple[str, float, float]
    entry_ms: Mapping[str, float]


def check_sources(lut: Lut, store: LutStore) -> list[SourceCheck]:
    """Each source, compared with the LUT or published table of its digest where `store` has that.

    Verification needs none of them: a LUT keeps the entries that it was learned from.

    Raises:
        InvalidArtifactError: one of that digest is at hand and has other entries.
    """
    if not lut.meta.sources:
        return []
    here = {digest_of(ref): ref for ref in store.list()}
    checks = []
    for source in lut.meta.sources:
        told = None
        if source.measured == "published":
            told = _published(source.digest, store)
        elif source.digest in here:
            told = _measured(str(here[source.digest]), store.load(here[source.digest]))
        if told is not None:
            _compare(lut, source, told)
        checks.append(SourceCheck(source.name, source.digest, told.name if told else ""))
    return checks


def _measured(name: str, lut: Lut) -> _Told:
    meta = lut.meta
    terms = (meta.measured, meta.base_ms, meta.transfer_ms_per_mib)
    return _Told(name, terms, {entry.key: entry.ms for entry in lut.entries})


def _published(digest: str, store: LutStore) -> _Told | None:
    for path in list_published(store.roots).values():
        try:
            table = read_published(path)
        except InvalidArtifactError:
            continue
        if table.digest == digest:
            return _Told(str(table), ("published", 0.0, 0.0), table.entry_ms)
    return None


def _compare(lut: Lut, source: TransferSource, told: _Told) -> None:
    kept = zip(lut.entries, source.entry_ms, strict=True)
    wrong = next((entry.key for entry, ms in kept if ms != told.entry_ms.get(entry.key)), "")
    if (source.measured, source.base_ms, source.transfer_ms_per_mib) != told.terms:
        wrong = wrong or "base or transfer"
    if wrong:
        raise InvalidArtifactError(
            f"lut.json: of its source {source.name} it has another {wrong} than {told.name}, which has that "
            "digest; it was edited, take it from where it was made"
        )

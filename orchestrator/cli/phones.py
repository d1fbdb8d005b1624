"""The phones of a search: a LUT and a latency budget each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from luts.errors import UsageError
from luts.files import META_FILE
from luts.lut import Lut
from luts.model import LatencyModel
from luts.store import LutRef, LutStore
from orchestrator.cli.options import parse_latency
from orchestrator.coverage import covered_space
from orchestrator.export.cache import digest
from search.algorithms import LutPrice
from search.algorithms.record import LutPin
from search.spaces import Space


@dataclass(frozen=True)
class Phone:
    """A LUT and the latency that a network may have by it."""

    ref: LutRef
    lut: Lut
    latency_ms: float

    @property
    def pin(self) -> LutPin:
        """Which LUT it is, for the record."""
        return LutPin(name=str(self.ref), sha256=digest(self.ref.path / META_FILE)[0])

    @property
    def price(self) -> LutPrice:
        """Its latency model."""
        return LutPrice(LatencyModel.from_lut(self.lut), self.pin.sha256)


def open_phone(store: LutStore, name: str, latency: str) -> Phone:
    """A phone by the name of its LUT; `latency` is `10ms`, or `80%` of the LUT's reference model."""
    ref = store.resolve(name)
    lut = store.load(ref.path)
    if latency.endswith("%"):
        return Phone(ref, lut, lut.meta.reference_ms * parse_latency(latency[:-1]) / 100)
    return Phone(ref, lut, parse_latency(latency))


def open_phones(store: LutStore, name: str, latency: str, further: Sequence[str]) -> tuple[Phone, ...]:
    """The first phone and those given as `LUT=LATENCY`."""
    phones = [open_phone(store, name, latency)]
    for text in further:
        other, equals, asked = text.rpartition("=")
        if not equals or not other:
            raise UsageError(f"--also {text!r}: expected a LUT and its latency, e.g. pixel6/autovit-xxs=12ms")
        phones.append(open_phone(store, other, asked))
    return tuple(phones)


def searchable(phones: Sequence[Phone], space: Space) -> Space:
    """The part of a supernet's space whose latency all phones' LUTs know.

    Raises:
        UsageError: a LUT is of another space or lacks blocks, or the LUTs share no resolution.
    """
    for phone in phones:
        if phone.lut.meta.space != space.name:
            raise UsageError(
                f"{phone.ref} is of space {phone.lut.meta.space}, the supernet of {space.name}; "
                "use a matching pair"
            )
    parts = [covered_space(phone.lut, space.default_classes) for phone in phones]
    shared = set.intersection(*(set(part.resolutions) for part in parts))
    if not shared:
        raise UsageError(f"the LUTs share no resolution of {space.name}; profile them at the same one")
    return parts[0].restricted(tuple(sorted(shared)))

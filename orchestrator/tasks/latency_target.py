"""Latency targets of a search: a LUT and the largest latency allowed on its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from luts.estimate.statistics import CONFIDENCE, normal_quantile
from luts.format.errors import UsageError
from luts.format.latency import LatencyModel
from luts.format.lut import META_FILE, Lut
from luts.format.schema import Entry
from luts.format.store import LutRef, LutStore
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.session import Measurement
from orchestrator.measure.validate import LatencyComparison, compare_latencies
from orchestrator.plan.plan import classifier_note, features_of, with_classifier_prices
from orchestrator.tasks.parsing import parse_latency, parse_percent
from orchestrator.tasks.predict import Proxy, proxy_for
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.sources import price_blocks
from search.algorithms import LutPrice
from search.algorithms.record import LutPin
from search.spaces import Arch, Space, get_space
from search.spaces.scope import covered_space
from search.spaces.stages import TaskName


@dataclass(frozen=True)
class LatencyTarget:
    """A LUT and a network's largest latency by it, ms; `proxy` if the LUT is used for another device."""

    ref: LutRef
    lut: Lut
    latency_ms: float
    proxy: Proxy | None = None

    @classmethod
    def open(cls, lut: str, latency: str, store: LutStore, flag: str = "--latency") -> LatencyTarget:
        """Load a LUT and parse its latency limit: `10ms`, or `80%` of the LUT's reference model.

        Raises:
            UsageError: unknown LUT, or not a latency; the message names `flag`.
            InvalidArtifactError: the LUT is damaged.
        """
        percent = parse_percent(latency, flag) if latency.endswith("%") else None
        ms = parse_latency(latency, flag) if percent is None else 0.0
        ref = store.resolve(lut)
        table = store.load(ref.path)
        if percent is not None:
            ms = table.meta.reference_ms * percent / 100
        return cls(ref, table, ms)

    @property
    def pin(self) -> LutPin:
        """The LUT's identity for the record, and the device it is used for."""
        return LutPin(
            name=str(self.ref),
            sha256=digest(self.ref.path / META_FILE)[0],
            read_for=self.proxy.device if self.proxy else "",
            device_log_sd=self.proxy.log_sd if self.proxy else 0.0,
        )

    def for_device(self, device: str, store: LutStore, progress: Progress = silent) -> LatencyTarget:
        """Return the target for a device; if the LUT is another device's, warn and widen predictions and bounds."""
        proxy = proxy_for(self.ref, self.lut, device, store)
        if proxy is not None:
            progress(Note(f"warning: {proxy.warning(self.ref)}"))
        return replace(self, proxy=proxy)

    def for_space(self, space: Space, workers: int | None, progress: Progress = silent) -> LatencyTarget:
        """Return the target; a LUT of operators becomes one of this space, whose blocks it prices.

        Raises UsageError: a block can't be exported.
        """
        if self.lut.meta.operators is None:
            return self
        features = features_of(space.block_specs())
        priced = price_blocks(str(self.ref), self.lut, features, workers, progress)
        if missing := sorted(features.keys() - priced.entry_ms):
            raise UsageError(
                f"{missing[0]} can't be exported, so operators can't price it ({len(missing)} blocks in all); "
                f"profile {space.name}",
                code="not_priceable",
            )
        reach = normal_quantile(0.5 + CONFIDENCE / 2)
        entries = tuple(
            Entry.unmeasured(
                key, ms, ms - reach * priced.entry_se[key], ms + reach * priced.entry_se[key], features[key]
            )
            for key, ms in priced.entry_ms.items()
        )
        of_space = {"space": space.name, "space_hash": get_space(space.name).digest, "operators": None}
        meta = self.lut.meta.model_copy(update=of_space)
        return replace(self, lut=replace(self.lut, meta=meta, entries=entries))

    def for_classes(self, classes: int, progress: Progress = silent) -> LatencyTarget:
        """Return the target for networks of this many classes (`with_classifier_prices`)."""
        priced = with_classifier_prices(self.lut, classes)
        if note := classifier_note(self.lut, priced, classes):
            progress(Note(note))
        return replace(self, lut=priced)

    @property
    def head(self) -> str:
        """Name of the detection or segmentation head of the LUT's networks; "" for classifiers."""
        name = TaskName.parse(self.lut.meta.space)
        return name.head if name else ""

    @property
    def variant(self) -> Variant:
        """How the LUT's models run."""
        return Variant.parse(self.lut.meta.variant)

    @property
    def model(self) -> LatencyModel:
        """The latency model for the target device."""
        return replace(self.lut.latency_model, device_log_sd=self.proxy.log_sd if self.proxy else 0.0)

    @property
    def price(self) -> LutPrice:
        """The latency model with its identity."""
        pin = self.pin
        proxy = f"~{pin.device_log_sd!r}" if pin.device_log_sd else ""
        return LutPrice(self.model, pin.sha256 + proxy, str(self.ref))

    def compare(self, archs: Sequence[Arch], measurement: Measurement) -> list[LatencyComparison]:
        """Return predicted and measured latencies in ms of the LUT's reference.

        Of another device, they are in ms of that device's own reference on the day, whose uncertainty is included.
        """
        return compare_latencies(
            self.model, archs, measurement, None if self.proxy else self.lut.meta.reference_ms
        )


def searchable_space(targets: Sequence[LatencyTarget], space: Space) -> Space:
    """Return the part of a space that all targets' LUTs cover.

    Raises:
        UsageError: a LUT is of another space or lacks blocks, or the LUTs share no resolution.
    """
    for target in targets:
        if target.lut.meta.space != space.name:
            raise UsageError(
                f"{target.ref} is of space {target.lut.meta.space}, not of {space.name}; use a LUT of {space.name}",
                code="wrong_space",
            )
    parts = []
    for target in targets:
        try:
            parts.append(covered_space(target.lut, space.default_classes))
        except UsageError as error:
            raise UsageError(f"{target.ref}: {error}", code=error.code or "lut_does_not_cover") from error
    shared = set.intersection(*(set(part.resolutions) for part in parts))
    if not shared:
        raise UsageError(
            f"the LUTs share no resolution of {space.name}; profile them at the same one",
            code="no_shared_resolution",
        )
    return parts[0].restricted(tuple(sorted(shared)))

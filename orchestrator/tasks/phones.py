"""The phones of a search: a LUT and a latency budget each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from luts.format.errors import UsageError
from luts.format.latency import LatencyModel
from luts.format.lut import META_FILE, Lut
from luts.format.store import LutRef, LutStore, lut_store
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.artifacts.spec import Variant
from orchestrator.measure.session import Measurement
from orchestrator.measure.validate import LatencyComparison, compare_latencies
from orchestrator.plan.plan import classifier_note, with_classifier_prices
from orchestrator.tasks.foreign import Foreign, foreign, warning
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.trial import Trial
from search.algorithms import Budget, LutPrice
from search.algorithms.record import LutPin
from search.spaces import Arch, Space
from search.spaces.scope import Scope, covered_space
from search.spaces.task_heads import TaskName


@dataclass(frozen=True)
class Phone:
    """A LUT and the latency that a network may have by it; `foreign` where another device than its own is meant."""

    ref: LutRef
    lut: Lut
    latency_ms: float
    foreign: Foreign | None = None

    @property
    def pin(self) -> LutPin:
        """Which LUT it is, for the record, and for which device it was read."""
        return LutPin(
            name=str(self.ref),
            sha256=digest(self.ref.path / META_FILE)[0],
            read_for=self.foreign.device if self.foreign else "",
            device_log_sd=self.foreign.log_sd if self.foreign else 0.0,
        )

    def meant_for(self, device: str, store: LutStore, progress: Progress = silent) -> Phone:
        """The same for a device, of which its LUT may not be; then `progress` is told, and predictions and their
        bounds are as wide as the devices known to `store` are apart."""
        found = foreign(self.ref, self.lut, device, store)
        if found is not None:
            progress(Note(f"warning: {warning(self.ref, found)}"))
        return replace(self, foreign=found)

    def for_classes(self, classes: int, progress: Progress = silent) -> Phone:
        """The same phone for networks of so many classes (`with_classifier_prices`)."""
        priced = with_classifier_prices(self.lut, classes)
        if said := classifier_note(self.lut, priced, classes):
            progress(Note(said))
        return replace(self, lut=priced)

    @property
    def variant(self) -> Variant:
        """How the LUT's models run."""
        return Variant.parse(self.lut.meta.variant)

    @property
    def model(self) -> LatencyModel:
        """Its latency model, for the device that is meant."""
        log_sd = self.foreign.log_sd if self.foreign else 0.0
        return replace(self.lut.latency_model, device_log_sd=log_sd)

    @property
    def price(self) -> LutPrice:
        """Its latency model and which it is."""
        pin = self.pin
        read = f"~{pin.device_log_sd!r}" if pin.device_log_sd else ""
        return LutPrice(self.model, pin.sha256 + read, str(self.ref))

    def compared(self, archs: Sequence[Arch], measurement: Measurement) -> list[LatencyComparison]:
        """Predictions beside measurements, in ms of the LUT's reference; of another device in its own of that
        day, with the uncertainty of its reference in the intervals."""
        return compare_latencies(
            self.model, archs, measurement, None if self.foreign else self.lut.meta.reference_ms
        )


def open_phone(
    lut: str,
    *,
    latency_ms: float | None = None,
    reference_percent: float = 100.0,
    store: LutStore | None = None,
) -> Phone:
    """A phone by the name of its LUT, and what a network may take on it.

    Args:
        lut: Name or path.
        latency_ms: Milliseconds.
        reference_percent: Instead of them, a share of what the LUT's reference model takes.
        store: Where LUTs lie; the user's and the package's by default.

    Raises:
        UsageError: there is no such LUT.
        InvalidArtifactError: it is damaged.
    """
    store = store or lut_store()
    ref = store.resolve(lut)
    table = store.load(ref.path)
    if latency_ms is None:
        latency_ms = table.meta.reference_ms * reference_percent / 100
    return Phone(ref, table, latency_ms)


def is_priced_with_head(phone: Phone) -> bool:
    """Whether a LUT is of backbones with a head of detection or segmentation."""
    return TaskName.parse(phone.lut.meta.space) is not None


def meant_phones(
    phones: Sequence[Phone], trial: Trial | None, store: LutStore | None, progress: Progress
) -> list[Phone]:
    """The phones, the first meant for the device of a trial, if there is one.

    Raises:
        UsageError: its LUT is another device's, into which these measurements can't be fed.
    """
    if trial is None:
        return list(phones)
    meant = phones[0].meant_for(trial.device, store or lut_store(), progress)
    if meant.foreign and trial.feed_into is not None:
        raise UsageError(
            f"{meant.ref} is not of {trial.device}, so measurements there can't be fed into it; leave --feedback "
            f"out, or make it one of {trial.device} with bench lut adapt"
        )
    return [meant, *phones[1:]]


def budget_of(phones: Sequence[Phone], **further: Any) -> Budget:
    """The phones' latencies, and what else a network must hold: fields of `Budget`."""
    latencies = [phone.latency_ms for phone in phones]
    return Budget(latency_ms=latencies[0], further_latency_ms=tuple(latencies[1:]), **further)


def within_scope(budget: Budget, scope: Scope) -> Budget:
    """A budget that also holds what a supernet was trained on."""
    if scope.params is None:
        return budget
    least, most = scope.params
    params = most if budget.params is None else min(most, budget.params)
    return budget.model_copy(update={"params": params, "least_params": max(1, least)})


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
    parts = [_covered(phone, space.default_classes) for phone in phones]
    shared = set.intersection(*(set(part.resolutions) for part in parts))
    if not shared:
        raise UsageError(f"the LUTs share no resolution of {space.name}; profile them at the same one")
    return parts[0].restricted(tuple(sorted(shared)))


def _covered(phone: Phone, classes: int) -> Space:
    """`covered_space`, whose refusals name the phone's LUT."""
    try:
        return covered_space(phone.lut, classes)
    except UsageError as error:
        raise UsageError(f"{phone.ref}: {error}") from error

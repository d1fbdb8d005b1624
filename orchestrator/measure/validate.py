"""A LUT against reality: architectures that no fit has seen, predicted and measured beside its reference."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from luts.errors import BlocktimeError, UsageError
from luts.estimate.accuracy import kendall_tau, mape, share_within
from luts.lut import Lut
from luts.model import LatencyModel
from luts.schema import MeasuredModel
from orchestrator.measure.plan import model_id
from orchestrator.measure.session import Measurement
from search.spaces import Arch, Space

ATTEMPTS_PER_ARCH = 50
"""Draws for each architecture asked for, before the space counts as used up."""


@dataclass(frozen=True)
class Comparison:
    """One architecture: predicted with interval, measured with interval, in ms of the LUT's reference."""

    arch: str
    predicted_ms: float
    predicted_low: float
    predicted_high: float
    measured_ms: float
    measured_low: float
    measured_high: float

    @property
    def error(self) -> float:
        """(predicted - measured) / measured."""
        return self.predicted_ms / self.measured_ms - 1.0


@dataclass(frozen=True)
class Validation:
    """Accuracy of a LUT's predictions on `comparisons`.

    Attributes:
        noise_floor: Spread between two loads of one model in this measurement, relative.
        coverage: Share of measurements inside the predicted intervals.
        reference_drift: Today's latency of the reference over that in the LUT.
    """

    comparisons: tuple[Comparison, ...]
    mape: float
    max_error: float
    within_2: float
    within_5: float
    within_10: float
    kendall_tau: float | None
    coverage: float
    noise_floor: float
    reference_drift: float


def fresh_archs(space: Space, lut: Lut, count: int, seed: int) -> list[Arch]:
    """Random architectures of `space`, the part that the LUT covers, that were not measured for it.

    Raises:
        UsageError: the space does not have so many left.
    """
    known = {model.model_id for model in lut.models}
    rng = random.Random(f"validate:{space.digest}:{seed}")
    found: dict[str, Arch] = {}
    for _ in range(count * ATTEMPTS_PER_ARCH):
        arch = space.sample(rng)
        name = model_id(arch.keys())
        if name not in known:
            found.setdefault(name, arch)
        if len(found) == count:
            return list(found.values())
    raise UsageError(
        f"{space.name} has only {len(found)} architectures that the LUT has not seen; ask for fewer"
    )


def reference_of(lut: Lut) -> MeasuredModel:
    """The LUT's reference model."""
    return next(model for model in lut.models if model.model_id == lut.meta.reference_id)


def compare(lut: Lut, archs: Sequence[Arch], measurement: Measurement) -> list[Comparison]:
    """Predictions beside measurements, both in ms of the LUT's reference."""
    model = LatencyModel.from_lut(lut)
    rows = []
    for arch in archs:
        keys = arch.keys()
        predicted = model.predict(keys, arch.boundary_bytes())
        ms, low, high = measurement.ms(model_id(keys), lut.meta.reference_ms)
        rows.append(Comparison(arch.to_json(), predicted.ms, predicted.low, predicted.high, ms, low, high))
    return rows


def summarise(lut: Lut, comparisons: Sequence[Comparison], measurement: Measurement) -> Validation:
    """Errors, order and coverage over all comparisons."""
    truth = [c.measured_ms for c in comparisons]
    guess = [c.predicted_ms for c in comparisons]
    inside = sum(c.predicted_low <= c.measured_ms <= c.predicted_high for c in comparisons)
    return Validation(
        comparisons=tuple(comparisons),
        mape=mape(truth, guess),
        max_error=max(abs(c.error) for c in comparisons),
        within_2=share_within(truth, guess, 0.02),
        within_5=share_within(truth, guess, 0.05),
        within_10=share_within(truth, guess, 0.10),
        kendall_tau=kendall_tau(truth, guess),
        coverage=inside / len(comparisons),
        noise_floor=measurement.estimates.noise_floor,
        reference_drift=measurement.reference.ms / lut.meta.reference_ms,
    )


def write_validation(path: Path, validation: Validation, context: Mapping[str, str]) -> None:
    """Keep a validation as JSON for reports; `context` names LUT and device."""
    try:
        path.write_text(json.dumps(dict(context) | asdict(validation), indent=1), encoding="utf-8")
    except OSError as error:
        raise BlocktimeError(f"cannot write {path}: {error.strerror}") from error

"""Accuracy of a LUT: architectures that no fit has used, predicted and measured next to its reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from luts.estimate.statistics import Percentiles, kendall_tau, mape, share_within
from luts.format.files import read_json, write_text
from luts.format.latency import LatencyModel
from luts.format.lut import Lut
from luts.format.schema import Fraction, Ms, PositiveMs, Value
from luts.format.table import Column, Table
from orchestrator.measure.session import Measurement
from orchestrator.plan.plan import model_id
from search.spaces import Arch
from search.spaces.registry import MAX_ARCH_BYTES

MAX_COMPARISONS = 20_000
MAX_JSON_BYTES = 64 << 20
"""Largest file that is read: room for `MAX_COMPARISONS` architectures of usual size."""


class LatencyComparison(Value):
    """One architecture (canonical JSON), predicted and measured, with intervals.

    `percentiles` are of single calls in ms as they ran that day; None in files of earlier versions.
    """

    arch: str = Field(max_length=MAX_ARCH_BYTES)
    predicted_ms: PositiveMs
    predicted_low: Ms
    predicted_high: PositiveMs
    measured_ms: PositiveMs
    measured_low: Ms
    measured_high: PositiveMs
    percentiles: Percentiles | None = None

    @model_validator(mode="after")
    def _intervals_hold_their_values(self) -> Self:
        if not (
            self.predicted_low <= self.predicted_ms <= self.predicted_high
            and self.measured_low <= self.measured_ms <= self.measured_high
        ):
            raise ValueError("an interval does not hold its own value")
        return self

    @property
    def error(self) -> float:
        """Relative error (predicted - measured) / measured."""
        return self.predicted_ms / self.measured_ms - 1.0


class Validation(Value):
    """`validation.json`: how accurate a LUT's predictions are.

    Attributes:
        lut, device: Names of the LUT and of the measured device.
        measured: Whether the numbers come from a real device.
        noise_floor: Relative spread between two loads of one model in this measurement.
        coverage: Fraction of measurements inside the predicted intervals.
        reference_drift: The reference's latency of today over that in the LUT.
    """

    lut: str = Field(max_length=4096)
    device: str = Field(max_length=4096)
    measured: Literal["measured", "simulated"]
    comparisons: tuple[LatencyComparison, ...] = Field(min_length=1, max_length=MAX_COMPARISONS)
    mape: Annotated[float, Field(ge=0)]
    max_error: Annotated[float, Field(ge=0)]
    within_2: Fraction
    within_5: Fraction
    within_10: Fraction
    kendall_tau: Annotated[float, Field(ge=-1, le=1)] | None
    coverage: Fraction
    noise_floor: Annotated[float, Field(ge=0)]
    reference_drift: Annotated[float, Field(gt=0)]

    COLUMNS: ClassVar = (
        Column("predicted_ms", "predicted ms", 3),
        Column("predicted_low", "low", 3),
        Column("predicted_high", "high", 3),
        Column("measured_ms", "measured ms", 3),
        Column("error", "error", 2, percent=True),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return self.model_dump(exclude={"device", "measured"})

    def report(self) -> Iterator[Table | str]:
        """Yield the table of architectures by measured latency, and the summary."""
        rows = sorted(self.comparisons, key=lambda row: row.measured_ms)
        yield Table(self.lut, self.COLUMNS, [row.model_dump() | {"error": row.error} for row in rows])
        tau = "-" if self.kendall_tau is None else f"{self.kendall_tau:.3f}"
        yield (
            f"{len(rows)} architectures: MAPE {100 * self.mape:.2f} %, largest error "
            f"{100 * self.max_error:.2f} %, within 2/5/10 %: {100 * self.within_2:.0f}/"
            f"{100 * self.within_5:.0f}/{100 * self.within_10:.0f} %, Kendall tau {tau}"
        )
        yield (
            f"{100 * self.coverage:.0f} % inside the predicted intervals; noise floor "
            f"{100 * self.noise_floor:.2f} %; reference today / in the LUT {self.reference_drift:.3f}"
        )

    def save(self, path: Path) -> None:
        """Write the validation as JSON; raises StorageError."""
        write_text(path, json.dumps(self.model_dump(), indent=1))

    @classmethod
    def load(cls, path: Path) -> Validation:
        """Read a file that `save` wrote; raises InvalidArtifactError: it is damaged."""
        return read_json(path, cls, MAX_JSON_BYTES, "run bench validate again")


def compare_latencies(
    model: LatencyModel, archs: Sequence[Arch], measurement: Measurement, reference_ms: float | None
) -> list[LatencyComparison]:
    """Return predictions of architectures next to their measurements.

    Measurements are scaled to `reference_ms`, the LUT's reference latency. None for a LUT of another device:
    then they keep their own scale, with the uncertainty of their reference in the intervals.
    """
    rows = []
    for arch in archs:
        keys = arch.keys()
        predicted = model.predict(keys, arch.boundary_bytes())
        ms, low, high = measurement.ms(model_id(keys), reference_ms)
        if reference_ms is None:
            low, high = measurement.reference.widen(ms, low, high)
        rows.append(
            LatencyComparison(
                arch=arch.to_json(),
                predicted_ms=predicted.ms,
                predicted_low=predicted.low,
                predicted_high=predicted.high,
                measured_ms=ms,
                measured_low=max(low, 0.0),
                measured_high=high,
                percentiles=measurement.estimates.percentiles(model_id(keys)),
            )
        )
    return rows


def summarise_validation(
    name: str, device: str, lut: Lut, comparisons: Sequence[LatencyComparison], measurement: Measurement
) -> Validation:
    """Return errors, rank correlation and coverage over all comparisons, for the LUT `name` and a device."""
    truth = [c.measured_ms for c in comparisons]
    guess = [c.predicted_ms for c in comparisons]
    inside = sum(c.predicted_low <= c.measured_ms <= c.predicted_high for c in comparisons)
    return Validation(
        lut=name,
        device=device,
        measured=lut.meta.measured,
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

"""What samples say of whole models, before blocks come into it: ratios, and the milliseconds of the reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luts.estimate.aa import AaHistory, AaInterval, first_history, history_of, interval_of
from luts.estimate.location import MIN_ROUNDS
from luts.estimate.percentiles import Percentiles, percentiles
from luts.estimate.ratios import (
    AaDifference,
    LoadRatio,
    Ratio,
    RatioEstimates,
    load_variance,
    ratio_estimates,
)
from luts.estimate.reference import QuietLatency, quiet_latency
from luts.estimate.sessions import Session, sessions
from luts.estimate.units import Place, Spread, class_latency, spread
from luts.format.errors import InvalidArtifactError
from luts.format.samples import normalise_samples


@dataclass(frozen=True)
class Estimation:
    """Sessions and what follows from them; each part is computed once, when it is first asked for.

    Attributes:
        reference_id: The model that ratios are to.
        sessions: In order of batch and segment, those of rejected batches included.
        tables: Samples of these sessions, each table normalised.
        unit_of: Units of a class of devices by batch and segment; of one device alone, nothing.
    """

    reference_id: str
    sessions: Sequence[Session]
    tables: Sequence[pa.Table]
    unit_of: Mapping[Place, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, samples: pa.Table, reference_id: str, unit_of: Mapping[Place, str] | None = None
    ) -> Estimation:
        """From nothing but samples.

        Raises:
            InvalidArtifactError: they do not fit their schema.
        """
        samples = normalise_samples(samples)
        return cls(reference_id, sessions(samples), (samples,), unit_of or {})

    def without(self, models: Collection[str]) -> Estimation:
        """As if these models had not been measured."""
        if not any(name in models for session in self.sessions for name in session.models):
            return self
        names = self.samples.column("model").cast(pa.string())
        left_out = pc.is_in(names, value_set=pa.array(list(models), pa.string()))
        return Estimation.of(self.samples.filter(pc.invert(left_out)), self.reference_id, self.unit_of)

    @cached_property
    def samples(self) -> pa.Table:
        """All samples, normalised."""
        return self.tables[0] if len(self.tables) == 1 else normalise_samples(pa.concat_tables(self.tables))

    @cached_property
    def differences(self) -> list[AaDifference]:
        """A/A differences of the sessions in which both copies of the reference ran often enough."""
        differences = (session.aa_difference(self.reference_id) for session in self.sessions)
        return [difference for difference in differences if difference is not None]

    @cached_property
    def loads(self) -> list[LoadRatio]:
        """Every load of a model beside the reference, in kept batches."""
        return [ratio for session in self._kept for ratio in session.load_ratios(self.reference_id)]

    def load_ratios(self, model: str, denominator: str) -> list[LoadRatio]:
        """Every load of a model beside another one, in kept batches."""
        return [ratio for session in self._kept for ratio in session.load_ratios(denominator, model)]

    @cached_property
    def ratios(self) -> RatioEstimates:
        """Ratios of all models to the reference.

        Raises:
            InvalidArtifactError: the reference has no pair of loads.
        """
        rows = [session.log_ns[row] for session in self._kept for row in session.rows(self.reference_id)]
        rounds = int(sum(np.isfinite(row).sum() for row in rows))
        reference = Ratio(0.0, 0.0, 0.0, 0.0, len(rows), rounds) if rows else None
        return ratio_estimates(self.reference_id, reference, self.loads, self.differences)

    @cached_property
    def quiet(self) -> QuietLatency:
        """The reference's quiet latency; of a class of devices, where units are told.

        Raises:
            InvalidArtifactError: it was in no kept batch.
        """
        return class_latency(list(self._quiet_by_unit.values()))

    @cached_property
    def spread(self) -> Spread | None:
        """How far units of a class lie apart; None where one device alone was measured."""
        return spread(self._quiet_by_unit, self.loads, self.unit_of) if self.unit_of else None

    @cached_property
    def _quiet_by_unit(self) -> dict[str, QuietLatency]:
        """One of no name where no unit is told; else sessions without one tell of ratios alone."""
        medians_ms: dict[str, list[float]] = defaultdict(list)
        for session in self._kept:
            unit = self.unit_of.get((session.batch, session.segment), None if self.unit_of else "")
            ms = session.median_ms(self.reference_id)
            if ms is not None and unit is not None:
                medians_ms[unit].append(ms)
        if not medians_ms:
            raise InvalidArtifactError(
                f"reference {self.reference_id} has no kept sample; measure it in every batch"
            )
        sd = self.ratios.load_variance.sd
        return {unit: quiet_latency(medians_ms[unit], sd) for unit in sorted(medians_ms)}

    def percentiles(self, model: str) -> Percentiles:
        """Of a model's timed calls in kept batches, in ms as they ran that day."""
        rows = [session.log_ns[row] for session in self._kept for row in session.rows(model)]
        loads = [np.exp(row[np.isfinite(row)]) / 1e6 for row in rows]
        return percentiles([load for load in loads if len(load)])

    @cached_property
    def aa_history(self) -> AaHistory:
        """What these batches tell of the next one's A/A difference, the load variance from kept ones among it."""
        if not self.sessions:
            return first_history()
        return history_of(self.differences, load_variance(self.loads, self.differences).sd)

    def aa_interval(self, history: AaHistory) -> AaInterval:
        """95 % interval of the A/A difference, where all sessions are of one batch.

        Raises:
            InvalidArtifactError: no segment of the batch holds both copies of the reference.
        """
        if not self.differences:
            raise InvalidArtifactError(
                f"batch holds no pair of loads of reference {self.reference_id} with {MIN_ROUNDS} rounds; "
                "repeat it"
            )
        return interval_of(self.differences, history)

    @cached_property
    def _kept(self) -> list[Session]:
        return [session for session in self.sessions if session.kept]

"""Latency model: L(m) = base + sum of its blocks' entries + data moved between them, with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from luts.format.errors import UsageError, shorten
from luts.format.schema import MIB, Entry, LutMeta, MeasuredModel

WEAK_ENTRY_SHARE = 0.25
WEAK_REFERENCE_SHARE = 0.01
"""An entry is weak if no measured model has its block; or if no held-out model has and its interval is wider
than +-25 % of itself and than +-1 % of the reference model: uncertain, and large enough to matter. Where
held-out models have the block, its error is in theirs: entries that every network has, such as stem and head,
are uncertain one by one but not as a sum."""

MAX_LOG = math.log(100.0)
"""Intervals are at most a hundredfold: devices farther apart say nothing about a third."""


@dataclass(frozen=True)
class EntryCost:
    """An entry as predictions use it; `half_width_ms` is the larger arm of its 95 % interval."""

    ms: float
    half_width_ms: float
    weak: bool


@dataclass(frozen=True)
class Prediction:
    """Predicted latency of a network in ms, and the interval of a new measurement.

    Attributes:
        level: Probability of the interval; None: no conformal width exists, so the half-widths of all entries
            are added up, which is wider than 95 %.
        weak_keys: Blocks whose entries are weak, each once, in order.
        basis: Origin of the interval: `conformal`, `posterior` (calibrated), `entries`, or `spread` between
            devices.
    """

    ms: float
    low: float
    high: float
    level: float | None
    weak_keys: tuple[str, ...]
    basis: str = "conformal"

    def for_other_device(self, log_sd: float) -> Prediction:
        """Return it for another device: times and divided by exp(1.96 `log_sd`), own width in quadrature."""
        own = math.log(max(self.high / self.ms, 1.0))
        factor = math.exp(min(math.hypot(own, 1.96 * log_sd), MAX_LOG))
        return replace(self, low=self.ms / factor, high=self.ms * factor, level=0.95, basis="spread")


def latency_ms(
    entry_ms: Mapping[str, float],
    base_ms: float,
    transfer_ms_per_mib: float,
    blocks: Sequence[str],
    boundary_bytes: int,
) -> float:
    """Return base + sum l_i o_i + t D in ms. Raises UsageError, which names blocks that have no entry."""
    unknown = sorted({key for key in blocks if key not in entry_ms})
    if unknown:
        raise UsageError(
            f"LUT has no entry for {shorten(unknown)}; use a LUT of the network's own space, or profile it",
            code="missing_entry",
        )
    return base_ms + sum(entry_ms[key] for key in blocks) + transfer_ms_per_mib * boundary_bytes / MIB


@dataclass(frozen=True)
class Margin:
    """Distance between a prediction and an upper bound on a measurement.

    `relative` is a fraction of the predicted latency; `arms_ms` are added for every occurrence of a block.
    """

    relative: float
    arms_ms: Mapping[str, float]


@dataclass(frozen=True)
class LatencyModel:
    """Prices networks by a LUT.

    Attributes:
        conformal_half_width: Relative; None where there is none.
        heldout_errors: (measured - predicted) / predicted of the LUT's held-out models, ascending.
        basis: `conformal`, or `posterior` (calibrated) where few were held out and other devices' LUTs are
            the prior.
        device_log_sd: Distance of the target device from the LUT's, as a standard deviation of the logarithm;
            0 for the same device.
    """

    base_ms: float
    transfer_ms_per_mib: float
    costs: Mapping[str, EntryCost]
    conformal_half_width: float | None
    conformal_level: float | None
    heldout_errors: tuple[float, ...] = ()
    basis: str = "conformal"
    device_log_sd: float = 0.0

    @classmethod
    def of(cls, meta: LutMeta, entries: Sequence[Entry], models: Sequence[MeasuredModel]) -> LatencyModel:
        """Return the model of a LUT's parts.

        Its interval is the conformal one at 95 %, else the calibrated posterior's, else the conformal one at
        90 %, else the sum of the entries' own.
        """
        heldout = [row for row in models if row.split == "heldout"]
        represented = {key for row in heldout for key in row.blocks}
        costs = {}
        for entry in entries:
            half = max(entry.ci_high - entry.ms, entry.ms - entry.ci_low)
            uncertain = half > WEAK_ENTRY_SHARE * entry.ms and half > WEAK_REFERENCE_SHARE * meta.reference_ms
            weak = entry.method == "prior" or (uncertain and entry.key not in represented)
            costs[entry.key] = EntryCost(entry.ms, half, weak)
        conformal = meta.conformal
        width, level, basis = conformal.half_width_95, 0.95, "conformal"
        if width is None and conformal.posterior_half_width_95 is not None:
            width, basis = conformal.posterior_half_width_95, "posterior"
        elif width is None:
            width, level = conformal.half_width_90, 0.90
        model = cls(
            base_ms=meta.base_ms,
            transfer_ms_per_mib=meta.transfer_ms_per_mib,
            costs=costs,
            conformal_half_width=width,
            conformal_level=None if width is None else level,
            basis="entries" if width is None else basis,
        )
        errors = sorted(row.ms / model.predict(row.blocks, row.boundary_bytes).ms - 1 for row in heldout)
        return replace(model, heldout_errors=tuple(errors))

    def predict(self, blocks: Sequence[str], boundary_bytes: int) -> Prediction:
        """Predict the latency of a network from its blocks, in any order, and the data moved between them.

        Blocks whose entries are weak widen a conformal interval by their own half-widths: held-out models
        represent only blocks like theirs.

        Raises UsageError: a block has no entry.
        """
        entry_ms = {key: self.costs[key].ms for key in blocks if key in self.costs}
        ms = latency_ms(entry_ms, self.base_ms, self.transfer_ms_per_mib, blocks, boundary_bytes)
        weak_keys = tuple(dict.fromkeys(key for key in blocks if self.costs[key].weak))
        if self.conformal_half_width is None:
            half = sum(self.costs[key].half_width_ms for key in blocks)
        else:
            half = ms * self.conformal_half_width
            half += sum(self.costs[key].half_width_ms for key in blocks if self.costs[key].weak)
        own = Prediction(ms, max(ms - half, 0.0), ms + half, self.conformal_level, weak_keys, self.basis)
        return own.for_other_device(self.device_log_sd) if self.device_log_sd else own

    def margin(self, confidence: float) -> Margin:
        """Return the one-sided margin.

        P(measured <= (1 + relative) predicted + arms) >= confidence, in [0.5, 1).

        Split-conformal in the signed error of held-out models, the ceil((n + 1) confidence)-th smallest,
        which assumes no shape of the errors. With too few of them for that, the two-sided conformal interval
        of level 2 confidence - 1 or more, whose upper end this is if errors are as often too high as too low.
        With too few for that as well, the arms of all entries, added up as if all erred together, at the
        normal quantile of `confidence` instead of that of a 95 % interval. Weak entries widen the first two
        by their own arms.

        For another device `relative` is at least `device_log_sd` at the normal quantile of `confidence`, both
        in quadrature as logarithms, and arms grow by as much; the bound is then at least as high as such a
        sum of the whole.
        """
        own = self._own_margin(confidence)
        if not self.device_log_sd:
            return own
        apart = min(NormalDist().inv_cdf(confidence) * self.device_log_sd, MAX_LOG)
        relative = math.expm1(min(math.hypot(math.log1p(own.relative), apart), MAX_LOG))
        return Margin(relative, {key: arm * math.exp(apart) for key, arm in own.arms_ms.items()})

    def _own_margin(self, confidence: float) -> Margin:
        arm_share = NormalDist().inv_cdf(confidence) / NormalDist().inv_cdf(0.975)
        arms = {key: arm_share * cost.half_width_ms for key, cost in self.costs.items()}
        weak = {key: arms[key] for key, cost in self.costs.items() if cost.weak}
        rank = math.ceil((len(self.heldout_errors) + 1) * confidence - 1e-9)
        if rank <= len(self.heldout_errors):
            return Margin(max(0.0, self.heldout_errors[rank - 1]), weak)
        level = self.conformal_level or 0.0
        if self.conformal_half_width is not None and level >= 2 * confidence - 1 - 1e-9:
            return Margin(self.conformal_half_width, weak)
        return Margin(0.0, arms)

    def bound_ms(self, blocks: Sequence[str], boundary_bytes: int, confidence: float) -> float:
        """Return the latency that a measurement of this network does not exceed with probability `confidence`."""
        margin = self.margin(confidence)
        predicted_ms = self.predict(blocks, boundary_bytes).ms
        return (1 + margin.relative) * predicted_ms + sum(margin.arms_ms.get(key, 0.0) for key in blocks)

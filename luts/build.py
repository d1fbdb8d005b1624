"""Journal to LUT: everything derived is computed here, from the inputs alone, so that it can be
recomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from luts.consistency import check_parts
from luts.estimate.accuracy import heldout_error
from luts.estimate.conformal import conformal_widths
from luts.estimate.estimation import Estimation
from luts.estimate.identify import identify
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.quantiles import normal_quantile
from luts.estimate.ratios import CONFIDENCE, RatioEstimates
from luts.estimate.reference import QuietLatency
from luts.estimate.removal import BlockRemoval, block_removals
from luts.estimate.rows import Rows
from luts.format.latency import latency_ms
from luts.format.lut import Lut
from luts.format.schema import (
    Entry,
    KeyFeatures,
    KindPrior,
    LutInputs,
    LutMeta,
    MeasuredModel,
    ModelSpec,
)


def build_lut(
    inputs: LutInputs,
    models: Sequence[ModelSpec],
    estimation: Estimation,
    features: Mapping[str, KeyFeatures],
) -> Lut:
    """A LUT of every key of `features`. Equal arguments give an equal LUT.

    `models` are those measured, `estimation` rests on all their samples, rejected batches included. Raises
    InvalidArtifactError where they contradict each other or hold too little.
    """
    specs = tuple(sorted(models, key=lambda spec: spec.model_id))
    check_parts(inputs, specs, estimation, features)
    quiet = estimation.quiet
    measured = tuple(_measured(spec, estimation) for spec in specs)
    fit = _fit(measured, estimation.ratios, features)
    truth, predicted = _heldout_ms(measured, fit)
    meta = LutMeta(
        **dict(inputs),
        reference_ms=quiet.ms,
        reference_ci_low=quiet.low,
        reference_ci_high=quiet.high,
        noise_floor=estimation.ratios.noise_floor,
        load_sd=estimation.ratios.load_variance.sd,
        misfit_sd=fit.misfit_sd,
        base_ms=fit.base_ms,
        transfer_ms_per_mib=fit.transfer_ms_per_mib,
        prior=tuple(KindPrior(kind=kind, **dict(coefficients)) for kind, coefficients in fit.prior.items()),
        heldout_error=heldout_error(truth, predicted),
        conformal=conformal_widths(truth, predicted),
    )
    entries = _entries(fit, measured, estimation, features)
    return Lut(meta=meta, entries=entries, models=measured, samples=estimation.samples)


def prediction_half_width(
    models: Sequence[ModelSpec], estimation: Estimation, features: Mapping[str, KeyFeatures]
) -> float | None:
    """The conformal half-width that a LUT of these samples would have: at 95 %, else 90 %, else None."""
    specs = sorted(models, key=lambda spec: spec.model_id)
    measured = [_measured(spec, estimation) for spec in specs if spec.model_id in estimation.ratios.ratios]
    conformal = conformal_widths(*_heldout_ms(measured, _fit(measured, estimation.ratios, features)))
    return conformal.half_width_90 if conformal.half_width_95 is None else conformal.half_width_95


def _measured(spec: ModelSpec, estimation: Estimation) -> MeasuredModel:
    quiet, ratio = estimation.quiet, estimation.ratios.ratios[spec.model_id]
    return MeasuredModel(
        **dict(spec),
        ms=quiet.ms * float(np.exp(ratio.log_ratio)),
        ci_low=quiet.ms * float(np.exp(ratio.low)),
        ci_high=quiet.ms * float(np.exp(ratio.high)),
        loads=ratio.loads,
        rounds=ratio.rounds,
    )


def _fit(
    measured: Sequence[MeasuredModel], estimates: RatioEstimates, features: Mapping[str, KeyFeatures]
) -> JointFit:
    order = {name: row for row, name in enumerate(estimates.ratios)}
    fitted = [model for model in measured if model.fitted]
    rows: NDArray[np.intp] = np.array([order[model.model_id] for model in fitted])
    return fit_entries(Rows.of(fitted, estimates.covariance[np.ix_(rows, rows)]), features)


def _heldout_ms(measured: Sequence[MeasuredModel], fit: JointFit) -> tuple[list[float], list[float]]:
    """Measured and predicted."""
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    heldout = [model for model in measured if model.split == "heldout"]
    predicted = [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, model.blocks, model.boundary_bytes)
        for model in heldout
    ]
    return [model.ms for model in heldout], predicted


def _entries(
    fit: JointFit,
    measured: Sequence[MeasuredModel],
    estimation: Estimation,
    features: Mapping[str, KeyFeatures],
) -> tuple[Entry, ...]:
    removals = block_removals(measured, estimation)
    fitted = [model for model in measured if model.fitted]
    identified = identify(fit.keys, [model.blocks for model in fitted])
    half_ms = normal_quantile(0.5 + CONFIDENCE / 2) * fit.se
    entries = []
    for key, ms, half in zip(fit.keys, fit.ms.tolist(), half_ms.tolist(), strict=True):
        holders = [model for model in fitted if key in model.blocks]
        low, high = estimation.quiet.widen(ms, ms - half, ms + half)
        entries.append(
            Entry(
                key=key,
                ms=ms,
                ci_low=max(low, 0.0),
                ci_high=high,
                **_removal_fields(removals.get(key), estimation.quiet),
                loads=sum(model.loads for model in holders),
                rounds=sum(model.rounds for model in holders),
                method="design" if holders else "prior",
                **features[key].model_dump(),
                identified=identified[key],
            )
        )
    return tuple(entries)


def _removal_fields(removal: BlockRemoval | None, quiet: QuietLatency) -> dict[str, Any]:
    if removal is None:
        return dict.fromkeys(("removal_ms", "removal_ci_low", "removal_ci_high"))
    cost, ms = removal.cost, removal.cost.ms * quiet.ms
    low, high = quiet.widen(ms, cost.low * quiet.ms, cost.high * quiet.ms)
    return {
        "removal_ms": ms,
        "removal_ci_low": low,
        "removal_ci_high": high,
        "migrated_operations": removal.migrated_operations,
    }

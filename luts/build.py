"""Journal to LUT: everything derived is computed here, from the inputs alone, so that it can be
recomputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luts.errors import InvalidArtifactError
from luts.estimate.accuracy import kendall_tau, mape, share_within
from luts.estimate.conformal import half_width
from luts.estimate.identify import Identified, identify
from luts.estimate.joint import JointFit, Rows, fit_entries
from luts.estimate.quantiles import normal_quantile
from luts.estimate.ratios import CONFIDENCE, RatioEstimates, ratio_estimates
from luts.estimate.reference import QuietLatency, quiet_latency
from luts.estimate.removal import RemovalCost, combine_removals, removal_cost
from luts.estimate.rounds import Session, sessions
from luts.lut import Lut
from luts.model import latency_ms
from luts.samples import kept_samples, normalise_samples
from luts.schema import (
    MAX_ENTRIES,
    MAX_MODELS,
    Conformal,
    Entry,
    HeldoutError,
    KeyFeatures,
    KindPrior,
    LutInputs,
    LutMeta,
    MeasuredModel,
    ModelSpec,
)


def build_lut(
    inputs: LutInputs, models: Sequence[ModelSpec], samples: pa.Table, features: Mapping[str, KeyFeatures]
) -> Lut:
    """A LUT of every key of `features`. Equal arguments give an equal LUT.

    `models` are those measured, `samples` all their samples, rejected batches included. Raises
    InvalidArtifactError where they contradict each other or hold too little.
    """
    samples = normalise_samples(samples)
    specs = tuple(sorted(models, key=lambda spec: spec.model_id))
    _check(inputs, specs, samples, features)
    estimates = ratio_estimates(samples, inputs.reference_id)
    found = sessions(kept_samples(samples))
    _check_measured(specs, estimates)
    quiet = quiet_latency(found, inputs.reference_id, estimates.load_variance.sd)
    measured = tuple(_measured(spec, estimates, quiet) for spec in specs)
    fit = _fit(measured, estimates, features)
    removals = _removals(specs, estimates, found)
    moved = _moved(specs)
    known = identify(fit.keys, [model.blocks for model in measured if model.fitted])
    entries = tuple(
        _entry(
            key, position, fit, quiet, features[key], removals.get(key), moved.get(key), measured, known[key]
        )
        for position, key in enumerate(fit.keys)
    )
    heldout_error, conformal = _accuracy(measured, fit)
    meta = LutMeta(
        **{name: getattr(inputs, name) for name in LutInputs.model_fields},
        reference_ms=quiet.ms,
        reference_ci_low=quiet.low,
        reference_ci_high=quiet.high,
        noise_floor=estimates.noise_floor,
        load_sd=estimates.load_variance.sd,
        misfit_sd=fit.misfit_sd,
        base_ms=fit.base_ms,
        transfer_ms_per_mib=fit.transfer_ms_per_mib,
        prior=tuple(
            KindPrior(
                kind=kind,
                constant_ms=row.constant_ms,
                ms_per_mmac=row.ms_per_mmac,
                ms_per_depthwise_mmac=row.ms_per_depthwise_mmac,
                ms_per_mib=row.ms_per_mib,
            )
            for kind, row in fit.prior.items()
        ),
        heldout_error=heldout_error,
        conformal=conformal,
    )
    return Lut(meta=meta, entries=entries, models=measured, samples=samples)


def prediction_half_width(
    reference_id: str, models: Sequence[ModelSpec], samples: pa.Table, features: Mapping[str, KeyFeatures]
) -> float | None:
    """The conformal half-width that a LUT of these samples would have: at 95 %, else 90 %, else None."""
    samples = normalise_samples(samples)
    estimates = ratio_estimates(samples, reference_id)
    quiet = quiet_latency(sessions(kept_samples(samples)), reference_id, estimates.load_variance.sd)
    specs = sorted(models, key=lambda spec: spec.model_id)
    measured = [_measured(spec, estimates, quiet) for spec in specs if spec.model_id in estimates.ratios]
    _, conformal = _accuracy(measured, _fit(measured, estimates, features))
    return conformal.half_width_90 if conformal.half_width_95 is None else conformal.half_width_95


def _check(
    inputs: LutInputs, specs: Sequence[ModelSpec], samples: pa.Table, features: Mapping[str, KeyFeatures]
) -> None:
    if not 0 < len(specs) <= MAX_MODELS or not 0 < len(features) <= MAX_ENTRIES:
        raise InvalidArtifactError(
            f"{len(specs)} models, {len(features)} keys; from 1 to {MAX_MODELS} and {MAX_ENTRIES} are allowed"
        )
    by_id = {spec.model_id: spec for spec in specs}
    if len(by_id) != len(specs):
        repeated = [name for name, times in Counter(spec.model_id for spec in specs).items() if times > 1]
        raise InvalidArtifactError(f"models named twice: {', '.join(sorted(repeated)[:5])}; give each once")
    reference = by_id.get(inputs.reference_id)
    if reference is None or reference.role != "reference":
        raise InvalidArtifactError(f"reference {inputs.reference_id} is no model with role reference")
    foreign = set(samples.column("model").unique().to_pylist()) - set(by_id)
    if foreign:
        raise InvalidArtifactError(f"samples of unknown models {', '.join(sorted(foreign)[:5])}; list them")
    second = samples.filter(pc.equal(samples.column("copy"), 1)).column("model").unique().to_pylist()
    if set(second) - {inputs.reference_id}:
        raise InvalidArtifactError(
            f"second copies of {', '.join(sorted(second)[:5])}; only the reference has one"
        )
    bare = sorted({key for spec in specs for key in spec.blocks} - set(features))
    if bare:
        raise InvalidArtifactError(
            f"no features for block {bare[0]} ({len(bare)} in all); give them to the build"
        )
    for spec in specs:
        if spec.role in ("removal", "swap"):
            _check_pair(spec, by_id.get(spec.base_id))


def _check_pair(spec: ModelSpec, base: ModelSpec | None) -> None:
    if base is None:
        raise InvalidArtifactError(
            f"{spec.role} {spec.model_id} names base {spec.base_id}, which is not measured"
        )
    if spec.role == "swap":
        if spec.blocks.count(spec.removed_key) >= base.blocks.count(spec.removed_key):
            raise InvalidArtifactError(
                f"swap {spec.model_id} holds no fewer {spec.removed_key} than {spec.base_id}; give it role design"
            )
        return
    missing = Counter(base.blocks)
    missing.subtract(spec.blocks)
    if {key: times for key, times in missing.items() if times} != {spec.removed_key: 1}:
        raise InvalidArtifactError(
            f"removal {spec.model_id} is not {spec.base_id} without one {spec.removed_key}; "
            "give it role swap or design"
        )


def _check_measured(specs: Sequence[ModelSpec], estimates: RatioEstimates) -> None:
    silent = [spec.model_id for spec in specs if spec.model_id not in estimates.ratios]
    if silent:
        raise InvalidArtifactError(
            f"no usable load of {', '.join(silent[:5])} ({len(silent)} models); "
            "measure them again or leave them out"
        )


def _measured(spec: ModelSpec, estimates: RatioEstimates, quiet: QuietLatency) -> MeasuredModel:
    ratio = estimates.ratios[spec.model_id]
    return MeasuredModel(
        **{name: getattr(spec, name) for name in ModelSpec.model_fields},
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
    return fit_entries(
        Rows(
            ms=np.array([model.ms for model in fitted]),
            log_covariance=estimates.covariance[np.ix_(rows, rows)],
            blocks=tuple(model.blocks for model in fitted),
            boundary_bytes=np.array([float(model.boundary_bytes) for model in fitted]),
        ),
        features,
    )


def _removals(
    specs: Sequence[ModelSpec], estimates: RatioEstimates, found: Sequence[Session]
) -> dict[str, RemovalCost]:
    """Removal costs by key, in units of the reference's latency."""
    return {
        key: combine_removals(
            [removal_cost(found, estimates, spec.base_id, spec.model_id) for spec in group],
            estimates.load_variance.df,
        )
        for key, group in _removal_groups(specs).items()
    }


def _removal_groups(specs: Sequence[ModelSpec]) -> dict[str, list[ModelSpec]]:
    """By key the removals that tell its cost; those that moved other operations only where there are no others."""
    groups: dict[str, list[ModelSpec]] = {}
    for spec in specs:
        if spec.role == "removal":
            groups.setdefault(spec.removed_key, []).append(spec)
    return {key: [spec for spec in group if not spec.moved] or group for key, group in groups.items()}


def _moved(specs: Sequence[ModelSpec]) -> dict[str, int | None]:
    """By key the most operations that moved in a removal that its cost rests on."""
    return {
        key: max((spec.moved for spec in group if spec.moved is not None), default=None)
        for key, group in _removal_groups(specs).items()
    }


def _entry(
    key: str,
    position: int,
    fit: JointFit,
    quiet: QuietLatency,
    features: KeyFeatures,
    removal: RemovalCost | None,
    moved: int | None,
    measured: Sequence[MeasuredModel],
    identified: Identified,
) -> Entry:
    holders = [model for model in measured if model.fitted and key in model.blocks]
    ms, se = float(fit.ms[position]), float(fit.se[position])
    half = normal_quantile(0.5 + CONFIDENCE / 2) * se
    low, high = quiet.widen(ms, ms - half, ms + half)
    removal_ms = removal_low = removal_high = None
    if removal is not None:
        removal_ms = removal.ms * quiet.ms
        removal_low, removal_high = quiet.widen(removal_ms, removal.low * quiet.ms, removal.high * quiet.ms)
    return Entry(
        key=key,
        ms=ms,
        ci_low=max(low, 0.0),
        ci_high=high,
        removal_ms=removal_ms,
        removal_ci_low=removal_low,
        removal_ci_high=removal_high,
        loads=sum(model.loads for model in holders),
        rounds=sum(model.rounds for model in holders),
        method="design" if holders else "prior",
        **features.model_dump(),
        moved=moved,
        identified=identified,
    )


def _accuracy(measured: Sequence[MeasuredModel], fit: JointFit) -> tuple[HeldoutError | None, Conformal]:
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    heldout = [model for model in measured if model.split == "heldout"]
    truth = [model.ms for model in heldout]
    guess = [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, model.blocks, model.boundary_bytes)
        for model in heldout
    ]
    conformal = Conformal(
        half_width_90=half_width(truth, guess, 0.90), half_width_95=half_width(truth, guess, 0.95)
    )
    if not heldout:
        return None, conformal
    error = HeldoutError(
        models=len(heldout),
        mape=mape(truth, guess),
        within_5=share_within(truth, guess, 0.05),
        within_10=share_within(truth, guess, 0.10),
        kendall_tau=kendall_tau(truth, guess),
    )
    return error, conformal

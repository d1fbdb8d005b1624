"""Build a LUT: every derived value follows from the inputs and samples, so that it can be recomputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from luts.estimate.design import identify
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.latencies import LatencyEstimates, QuietLatency, RemovalCost, block_removals
from luts.estimate.likelihood import MISFIT, FitData
from luts.estimate.operators import fit_operators
from luts.estimate.sources import SourceEntries
from luts.estimate.statistics import CONFIDENCE, conformal_widths, heldout_error, normal_quantile
from luts.format.errors import InvalidArtifactError, shorten
from luts.format.latency import MAX_LOG, latency_ms
from luts.format.lut import Lut
from luts.format.operators import OPERATORS
from luts.format.schema import (
    MAX_ENTRIES,
    MAX_MODELS,
    Conformal,
    Entry,
    KeyFeatures,
    KindPrior,
    LutInputs,
    LutMeta,
    MeasuredModel,
    ModelSpec,
)


def check_parts(
    inputs: LutInputs,
    specs: Sequence[ModelSpec],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
) -> None:
    """Check that models, samples and features fit together, before anything is computed from them.

    Raises InvalidArtifactError: they contradict each other, or a model has no usable load.
    """
    if not 0 < len(specs) <= MAX_MODELS or not 0 < len(features) <= MAX_ENTRIES:
        raise InvalidArtifactError(
            f"{len(specs)} models, {len(features)} keys; from 1 to {MAX_MODELS} and {MAX_ENTRIES} are allowed",
            code="too_many_models",
        )
    by_id = {spec.model_id: spec for spec in specs}
    _check_models(inputs, specs, by_id, estimation)
    bare = sorted({key for spec in specs for key in spec.blocks} - set(features))
    if bare:
        raise InvalidArtifactError(
            f"no features for block {bare[0]} ({len(bare)} in all); give them to the build",
            code="missing_features",
        )
    for spec in specs:
        if spec.role in ("removal", "swap"):
            _check_pair(spec, by_id.get(spec.base_id))
    silent = [spec.model_id for spec in specs if spec.model_id not in estimation.ratios]
    if silent:
        raise InvalidArtifactError(
            f"no usable load of {shorten(silent)}; measure them again or leave them out",
            code="no_usable_load",
        )


def _check_models(
    inputs: LutInputs,
    specs: Sequence[ModelSpec],
    by_id: Mapping[str, ModelSpec],
    estimation: LatencyEstimates,
) -> None:
    """Check that models are unique, samples are of them, and the reference is the only one loaded twice."""
    samples = estimation.samples
    if len(by_id) != len(specs):
        repeated = [name for name, times in Counter(spec.model_id for spec in specs).items() if times > 1]
        raise InvalidArtifactError(
            f"models listed twice: {shorten(sorted(repeated))}; list each once", code="duplicate_model"
        )
    if estimation.reference_id != inputs.reference_id:
        raise InvalidArtifactError(
            f"ratios to {estimation.reference_id}, but reference {inputs.reference_id}; estimate them again",
            code="wrong_reference",
        )
    reference = by_id.get(inputs.reference_id)
    if reference is None or reference.role != "reference":
        raise InvalidArtifactError(
            f"reference {inputs.reference_id} is not a model with role reference", code="wrong_reference"
        )
    foreign = set(samples.column("model").unique().to_pylist()) - set(by_id)
    if foreign:
        raise InvalidArtifactError(
            f"samples of unknown models {shorten(sorted(foreign))}; list them", code="unknown_model"
        )
    second = samples.filter(pc.equal(samples.column("copy"), 1)).column("model").unique().to_pylist()
    if set(second) - {inputs.reference_id}:
        raise InvalidArtifactError(
            f"second copies of {shorten(sorted(second))}; only the reference has one",
            code="wrong_second_copy",
        )


def _check_pair(spec: ModelSpec, base: ModelSpec | None) -> None:
    if base is None:
        raise InvalidArtifactError(
            f"{spec.role} {spec.model_id} names base {spec.base_id}, which is not measured",
            code="unknown_model",
        )
    if spec.role == "swap":
        if spec.blocks.count(spec.removed_key) >= base.blocks.count(spec.removed_key):
            raise InvalidArtifactError(
                f"swap {spec.model_id} has no fewer {spec.removed_key} than {spec.base_id}; give it role design",
                code="wrong_role",
            )
        return
    missing = Counter(base.blocks)
    missing.subtract(spec.blocks)
    if {key: times for key, times in missing.items() if times} != {spec.removed_key: 1}:
        raise InvalidArtifactError(
            f"removal {spec.model_id} is not {spec.base_id} without one {spec.removed_key}; "
            "give it role swap or design",
            code="wrong_role",
        )


def build_lut(
    inputs: LutInputs,
    models: Sequence[ModelSpec],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
) -> Lut:
    """Build a LUT with an entry for every key of `features`. Equal arguments give an equal LUT.

    `estimation` is of all samples of the models, rejected batches included.

    Raises:
        InvalidArtifactError: the arguments contradict each other, or a model has too few samples.
    """
    specs = tuple(sorted(models, key=lambda spec: spec.model_id))
    check_parts(inputs, specs, estimation, features)
    quiet = estimation.quiet
    measured = tuple(_measured(spec, estimation) for spec in specs)
    estimate = _operator_estimates if inputs.space == OPERATORS else _block_estimates
    learned, entries = estimate(inputs, measured, estimation, features)
    meta = LutMeta(
        **dict(inputs),
        reference_ms=quiet.ms,
        reference_ci_low=quiet.low,
        reference_ci_high=quiet.high,
        noise_floor=estimation.noise_floor,
        load_sd=estimation.load_variance.sd,
        unit_spread=estimation.unit_variation,
        **learned,
    )
    return Lut(meta=meta, entries=entries, models=measured, samples=estimation.samples)


def _block_estimates(
    inputs: LutInputs,
    measured: Sequence[MeasuredModel],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """Return what a LUT of a search space stores of the joint fit: fields of lut.json, and its entries."""
    fit = fit_measured(measured, estimation, features, stored_sources(inputs, sorted(features)))
    learned = {
        "misfit_sd": fit.misfit_sd,
        "base_ms": fit.base_ms,
        "transfer_ms_per_mib": fit.transfer_ms_per_mib,
        "prior": tuple(
            KindPrior(kind=kind, **dict(coefficients)) for kind, coefficients in fit.prior.items()
        ),
        "heldout_error": heldout_error(*_heldout_ms(measured, fit)),
        "conformal": _widths(measured, fit, estimation),
        "dropped_sources": dict(fit.dropped),
    }
    half_ms, ms = fit.reach * fit.se, fit.ms
    priced = list(zip(fit.keys, ms.tolist(), (ms - half_ms).tolist(), (ms + half_ms).tolist(), strict=True))
    shares = [None] * len(fit.keys) if fit.measured_share is None else fit.measured_share.tolist()
    identified = identify(fit.keys, [model.blocks for model in measured if model.fitted])
    more = {
        key: {"identified": identified[key], "measured_share": share}
        for key, share in zip(fit.keys, shares, strict=True)
    }
    return learned, _entries(priced, measured, estimation, features, more)


def _operator_estimates(
    inputs: LutInputs,
    measured: Sequence[MeasuredModel],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
) -> tuple[dict[str, Any], tuple[Entry, ...]]:
    """Return what a LUT of operators stores of its fit: fields of lut.json, and its entries."""
    sources = stored_sources(inputs, sorted(features))
    model, left_out, stored, gain = fit_operators(measured, sources)
    known_ms, predicted_ms = left_out.ms.tolist(), left_out.predicted_ms.tolist()
    learned = {
        "misfit_sd": float(model.sds[MISFIT]),
        "base_ms": 0.0,
        "transfer_ms_per_mib": 0.0,
        "prior": (),
        "heldout_error": heldout_error(known_ms, predicted_ms),
        "conformal": conformal_widths(known_ms, predicted_ms),
        "operators": stored,
        "dropped_sources": {} if model.operators.sources else {source.name: gain for source in sources},
    }
    priced, ms, covariance = model.price(sorted(features))
    log_sd = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    reach = np.exp(np.minimum(normal_quantile(0.5 + CONFIDENCE / 2) * log_sd, MAX_LOG))
    columns = (ms.tolist(), (ms / reach).tolist(), (ms * reach).tolist())
    return learned, _entries(list(zip(priced.keys, *columns, strict=True)), measured, estimation, features)


def prediction_half_width(
    models: Sequence[ModelSpec],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries] = (),
) -> float | None:
    """Return the relative half-width that predictions of a LUT of these samples would have.

    Conformal at 95 %, else with sources the posterior's, else conformal at 90 %, else None.
    """
    measured, fit = fit_so_far(models, estimation, features, sources)
    widths = _widths(measured, fit, estimation)
    known = (widths.half_width_95, widths.posterior_half_width_95, widths.half_width_90)
    return next((width for width in known if width is not None), None)


def fit_so_far(
    models: Sequence[ModelSpec],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries] = (),
) -> tuple[list[MeasuredModel], JointFit]:
    """Return the models that have samples, and a fit of them."""
    specs = sorted(models, key=lambda spec: spec.model_id)
    measured = [_measured(spec, estimation) for spec in specs if spec.model_id in estimation.ratios]
    return measured, fit_measured(measured, estimation, features, sources)


def stored_sources(inputs: LutInputs, keys: Sequence[str]) -> list[SourceEntries]:
    """Return the sources of a LUT with these keys. Raises InvalidArtifactError: the counts of keys differ."""
    if any(
        {len(source.entry_ms), len(source.entry_se) or len(keys)} != {len(keys)} for source in inputs.sources
    ):
        raise InvalidArtifactError(
            "a source has not as many entries as the LUT has keys; restore lut.json", code="invalid_source"
        )
    return [
        SourceEntries(source.name, entry_ms, source.base_ms, source.transfer_ms_per_mib, entry_se)
        for source in inputs.sources
        for entry_ms, entry_se in [source.priced(keys)]
    ]


def _widths(measured: Sequence[MeasuredModel], fit: JointFit, estimation: LatencyEstimates) -> Conformal:
    truth, predicted = _heldout_ms(measured, fit)
    widths = conformal_widths(truth, predicted)
    if not fit.sources:
        return widths
    heldout = [model for model in measured if model.split == "heldout"]
    half_width = fit.half_width(
        heldout, predicted, [estimation.ratios[model.model_id].se for model in heldout]
    )
    return widths.model_copy(update={"posterior_half_width_95": half_width})


def estimates_of(lut: Lut, samples: pa.Table | None = None) -> LatencyEstimates:
    """Return the estimates of a LUT's samples (or of `samples`), each assigned to the unit that it ran on."""
    unit_of = {place: unit.unit for unit in lut.meta.units for place in unit.sessions}
    return LatencyEstimates.of(lut.samples if samples is None else samples, lut.meta.reference_id, unit_of)


def _measured(spec: ModelSpec, estimation: LatencyEstimates) -> MeasuredModel:
    quiet, ratio = estimation.quiet, estimation.ratios[spec.model_id]
    return MeasuredModel(
        **dict(spec),
        ms=quiet.ms * float(np.exp(ratio.log_ratio)),
        ci_low=quiet.ms * float(np.exp(ratio.low)),
        ci_high=quiet.ms * float(np.exp(ratio.high)),
        loads=ratio.loads,
        rounds=ratio.rounds,
    )


def fit_measured(
    measured: Sequence[MeasuredModel],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
    sources: Sequence[SourceEntries] = (),
) -> JointFit:
    """Fit the entries to those measured models that are rows of the fit; see `fit_entries`."""
    order = {name: row for row, name in enumerate(estimation.ratios)}
    fitted = [model for model in measured if model.fitted]
    rows: NDArray[np.intp] = np.array([order[model.model_id] for model in fitted])
    return fit_entries(FitData.of(fitted, estimation.covariance[np.ix_(rows, rows)]), features, sources)


def _heldout_ms(measured: Sequence[MeasuredModel], fit: JointFit) -> tuple[list[float], list[float]]:
    """Return measured and predicted milliseconds of the held-out models."""
    entry_ms = dict(zip(fit.keys, fit.ms.tolist(), strict=True))
    heldout = [model for model in measured if model.split == "heldout"]
    predicted = [
        latency_ms(entry_ms, fit.base_ms, fit.transfer_ms_per_mib, model.blocks, model.boundary_bytes)
        for model in heldout
    ]
    return [model.ms for model in heldout], predicted


def _entries(
    priced: Sequence[tuple[str, float, float, float]],
    measured: Sequence[MeasuredModel],
    estimation: LatencyEstimates,
    features: Mapping[str, KeyFeatures],
    more: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[Entry, ...]:
    """Return entries from keys, ms and intervals without the reference's uncertainty; `more` fields by key."""
    removals = block_removals(measured, estimation)
    holders: dict[str, list[MeasuredModel]] = {key: [] for key in features}
    for model in measured:
        for key in set(model.blocks) if model.fitted else ():
            holders[key].append(model)
    entries = []
    for key, ms, low_ms, high_ms in priced:
        low, high = estimation.quiet.widen(ms, low_ms, high_ms)
        entries.append(
            Entry(
                key=key,
                ms=ms,
                ci_low=max(low, 0.0),
                ci_high=high,
                **_removal_fields(removals.get(key), estimation.quiet),
                loads=sum(model.loads for model in holders[key]),
                rounds=sum(model.rounds for model in holders[key]),
                method="design" if holders[key] else "prior",
                **features[key].model_dump(),
                **(more or {}).get(key, {}),
            )
        )
    return tuple(entries)


def _removal_fields(removal: RemovalCost | None, quiet: QuietLatency) -> dict[str, Any]:
    if removal is None:
        return dict.fromkeys(("removal_ms", "removal_ci_low", "removal_ci_high"))
    ms = removal.ms * quiet.ms
    low, high = quiet.widen(ms, removal.low * quiet.ms, removal.high * quiet.ms)
    return {
        "removal_ms": ms,
        "removal_ci_low": low,
        "removal_ci_high": high,
        "migrated_operations": removal.migrated_operations,
    }

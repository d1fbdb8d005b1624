"""Ways to price networks from measurements, from the cheapest to what a LUT ships, behind one interface.

All see the same observations and give costs that add up, so that their errors on held-out networks compare the
ways and nothing else. `joint` is the LUT's own fit; the others are what it has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from luts.estimate.joint import fit_entries
from luts.estimate.likelihood import FitData
from luts.format.errors import UsageError
from luts.format.latency import latency_ms
from luts.format.schema import Floats, KeyFeatures, MeasuredModel


@dataclass(frozen=True)
class Observations:
    """What may be learned from: whole models, the covariance (m, m) of their log latencies in the same order,
    milliseconds of blocks measured alone, and the features of all keys of the space.
    """

    models: tuple[MeasuredModel, ...]
    log_covariance: Floats
    alone_ms: Mapping[str, float]
    features: Mapping[str, KeyFeatures]

    def only(self, wanted: Callable[[MeasuredModel], bool]) -> Observations:
        """The models for which `wanted` holds."""
        kept = [row for row, model in enumerate(self.models) if wanted(model)]
        return replace(
            self,
            models=tuple(self.models[row] for row in kept),
            log_covariance=self.log_covariance[np.ix_(kept, kept)],
        )

    def without(self, models: Collection[str], alone: Collection[str]) -> Observations:
        """As if these models, and these blocks alone, had not been measured."""
        return replace(
            self.only(lambda model: model.model_id not in models),
            alone_ms={key: ms for key, ms in self.alone_ms.items() if key not in alone},
        )


@dataclass(frozen=True)
class Costs:
    """What an estimator learned, in milliseconds; every key of the space has a cost."""

    entry_ms: Mapping[str, float]
    base_ms: float = 0.0
    transfer_ms_per_mib: float = 0.0

    def predict(self, blocks: Sequence[str], boundary_bytes: int) -> float:
        """Latency of a network, ms. Raises UsageError for an unknown block."""
        return latency_ms(self.entry_ms, self.base_ms, self.transfer_ms_per_mib, blocks, boundary_bytes)


Estimator = Callable[[Observations], Costs]


def macs_linear(observed: Observations) -> Costs:
    """A constant and the network's MACs, attention's products included."""
    return _linear(observed, {key: feature.macs for key, feature in observed.features.items()})


def parameters_linear(observed: Observations) -> Costs:
    """A constant and the network's parameters."""
    return _linear(observed, {key: feature.params for key, feature in observed.features.items()})


def blocks_alone(observed: Observations) -> Costs:
    """The sum of blocks measured alone, as once-for-all (Cai et al. 2020) and FBNet (Wu et al. 2019) do.

    A block that was not measured costs as much for each MAC as all that were. Raises UsageError without any.
    """
    if not observed.alone_ms:
        raise UsageError("no block was measured alone; measure some")
    macs = sum(observed.features[key].macs for key in observed.alone_ms)
    return _completed(observed, observed.alone_ms, sum(observed.alone_ms.values()) / macs)


def removals(observed: Observations) -> Costs:
    """The sum of latency drops by removal (AutoViT, section 3.3.2), averaged where a block was removed twice.

    The paper leaves open what blocks cost that can't be removed (stem, changes of width or stride, shells, head).
    Here they share what removals leave of their networks in proportion to their MACs. So do blocks whose removal
    was not measured. Raises UsageError where no base of a removal, nor the reference, was measured.
    """
    by_id = {model.model_id: model for model in observed.models}
    bases = {model.model_id for model in observed.models if model.role in ("reference", "base")}
    drops: dict[str, list[float]] = {}
    for model in observed.models:
        if model.role == "removal" and model.base_id in bases:
            drops.setdefault(model.removed_key, []).append(by_id[model.base_id].ms - model.ms)
    if not bases:
        raise UsageError("neither the reference nor a base of removals was measured; measure one")
    cost = {key: float(np.mean(values)) for key, values in drops.items()}
    left_ms = left_macs = 0.0
    for name in sorted(bases):
        left_ms += by_id[name].ms - sum(cost.get(key, 0.0) for key in by_id[name].blocks)
        left_macs += sum(observed.features[key].macs for key in by_id[name].blocks if key not in cost)
    return _completed(observed, cost, left_ms / left_macs if left_macs else 0.0)


def design(observed: Observations) -> Costs:
    """The joint fit of the reference and the randomised whole networks alone."""
    return joint(observed.only(lambda model: model.role in ("reference", "design")))


def joint(observed: Observations) -> Costs:
    """The joint fit of all whole models that count as its rows: what a LUT ships."""
    fitted = observed.only(lambda model: model.fitted)
    fit = fit_entries(FitData.of(fitted.models, fitted.log_covariance), observed.features)
    return Costs(dict(zip(fit.keys, fit.ms.tolist(), strict=True)), fit.base_ms, fit.transfer_ms_per_mib)


ESTIMATORS: Mapping[str, Estimator] = {
    "MACs, linear": macs_linear,
    "parameters, linear": parameters_linear,
    "blocks measured alone, sum": blocks_alone,
    "removals, sum": removals,
    "design": design,
    "joint": joint,
}
"""By the name under which they are reported."""


def _linear(observed: Observations, size: Mapping[str, int]) -> Costs:
    """Least squares of relative errors with both coefficients >= 0, over architectures, which removals are not."""
    from scipy.optimize import nnls

    whole = [model for model in observed.models if model.fitted and model.role != "removal"]
    system = np.array([[1.0, sum(size[key] for key in model.blocks)] for model in whole])
    unit = np.maximum(system.mean(axis=0), 1.0)
    target = np.array([model.ms for model in whole])
    constant, slope = nnls(system / unit / target[:, None], np.ones(len(whole)))[0] / unit
    return Costs({key: float(slope * amount) for key, amount in size.items()}, float(constant))


def _completed(observed: Observations, known_ms: Mapping[str, float], ms_per_mac: float) -> Costs:
    return Costs(
        {key: known_ms.get(key, ms_per_mac * feature.macs) for key, feature in observed.features.items()}
    )

"""Estimators on true latencies, without noise: what the plan identifies comes back, and only context stays open."""

import numpy as np
import pytest

from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.likelihood import FitData
from luts.estimate.statistics import mape
from luts.format.latency import latency_ms
from orchestrator.plan.build import make_plan
from orchestrator.plan.plan import PlanModel, features_of
from orchestrator.simulate.device import GroundTruth, TrueCosts, boundary_mib
from search.blocks import boundary_bytes, parse_keys
from search.spaces import get_space

NANO = get_space("autovit-nano")
PLAN = make_plan(NANO)
FITTED = [model for model in PLAN.models if model.role != "heldout"]
HELDOUT = [model for model in PLAN.models if model.role == "heldout"]


def handed_bytes(model: PlanModel) -> int:
    return boundary_bytes(parse_keys(model.blocks))


def fit(truth: GroundTruth) -> JointFit:
    rows = FitData(
        ms=np.array([truth.latency_ms(model.blocks) for model in FITTED]),
        log_covariance=np.zeros((len(FITTED), len(FITTED))),
        blocks=tuple(model.blocks for model in FITTED),
        boundary_bytes=np.array([float(handed_bytes(model)) for model in FITTED]),
    )
    specs = NANO.with_classes(PLAN.classes).block_specs(PLAN.resolutions)
    return fit_entries(rows, features_of(specs))


def heldout_mape(found: JointFit, truth: GroundTruth) -> float:
    entry_ms = dict(zip(found.keys, found.ms.tolist(), strict=True))
    predicted = [
        latency_ms(entry_ms, found.base_ms, found.transfer_ms_per_mib, model.blocks, handed_bytes(model))
        for model in HELDOUT
    ]
    return mape([truth.latency_ms(model.blocks) for model in HELDOUT], predicted)


def test_without_context_and_noise_everything_identified_is_recovered() -> None:
    """A block's cost together with what it hands on: their split is decided by no measurement."""
    truth = GroundTruth(TrueCosts())
    found = fit(truth)
    entry_ms = dict(zip(found.keys, found.ms.tolist(), strict=True))
    removed = {model.removed_key for model in FITTED if model.role == "removal"}
    assert len(removed) >= 16
    for key in removed:
        true_ms = truth.entry_ms(key) + truth.costs.transfer_ms_per_mib * boundary_mib(key)
        assert entry_ms[key] + found.transfer_ms_per_mib * boundary_mib(key) == pytest.approx(
            true_ms, rel=1e-3
        )
    assert heldout_mape(found, truth) < 1e-3


def test_fit_recovers_base_and_transfer() -> None:
    """The base is known only as a sum with stem and head, whose physics is the prior's to tell."""
    costs = TrueCosts(deviation_sd=0.0, base_ms=0.2, transfer_ms_per_mib=0.5)
    found = fit(GroundTruth(costs))
    assert found.base_ms == pytest.approx(costs.base_ms, rel=0.1)
    assert found.transfer_ms_per_mib == pytest.approx(costs.transfer_ms_per_mib, rel=0.1)


def test_the_error_that_stays_is_that_of_context() -> None:
    truth = GroundTruth(TrueCosts(pair_sd=0.02))
    strays = np.std([truth.context_ms(model.blocks) / truth.latency_ms(model.blocks) for model in HELDOUT])
    error = heldout_mape(fit(truth), truth)
    assert 0.2 * strays < error < 1.5 * strays
    twice = GroundTruth(TrueCosts(pair_sd=0.04))
    assert heldout_mape(fit(twice), twice) == pytest.approx(2 * error, rel=0.3)

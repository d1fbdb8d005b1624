from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import luts.format.store
from luts.build import build_lut
from luts.estimate.design import (
    ROW_SD,
    TYPICAL_DEVICE,
    ExpectedCosts,
    Posterior,
    expected_from_lut,
    most_informative,
)
from luts.estimate.physics import WEIGHT_BYTES, physics_ms
from luts.format.lut import Lut
from luts.format.schema import Coefficients, KeyFeatures, KindPrior
from luts.format.store import LutRef, LutStore
from tests.support.lut_world import make_study, make_world

SHIPPED = LutStore([Path(luts.format.store.__file__).parents[1] / "data"])
PRICE = Coefficients(constant_ms=0.5, ms_per_mmac=0.1, ms_per_depthwise_mmac=0.4, ms_per_mib=2.0)
BLOCK = KeyFeatures(
    kind="conv",
    macs=5_000_000,
    depthwise_macs=2_000_000,
    traffic_bytes=3 * 2**20,
    params=2**20 // WEIGHT_BYTES,
)


def test_the_cost_of_a_block_by_hand() -> None:
    assert physics_ms(BLOCK, PRICE) == pytest.approx(0.5 + 3 * 0.1 + 2 * 0.4 + (3 + 1) * 2.0)


@pytest.mark.parametrize(
    ("unpriced", "ms"),
    [
        ((), 0.5 + 3 * 0.1 + 2 * 0.4 + 4 * 2.0),
        (("params",), 0.5 + 3 * 0.1 + 2 * 0.4 + 3 * 2.0),
        (("depthwise_macs",), 0.5 + 5 * 0.1 + 4 * 2.0),
    ],
)
def test_features_that_coefficients_were_made_without_cost_nothing(
    unpriced: tuple[str, ...], ms: float
) -> None:
    expectation = ExpectedCosts("by hand", PRICE, unpriced=unpriced)
    assert expectation.ms({"a": BLOCK}) == {"a": pytest.approx(ms)}


def test_most_specific_cost_counts() -> None:
    none = Coefficients(constant_ms=0.0, ms_per_mmac=0.0, ms_per_mib=0.0)
    expectation = ExpectedCosts("by hand", none, {"conv": PRICE}, {"known": 7.0})
    other = BLOCK.model_copy(update={"kind": "other"})
    told = expectation.ms({"known": BLOCK, "conv": BLOCK, "other": other})
    assert told == {"known": 7.0, "conv": pytest.approx(9.6), "other": 1e-6}


@pytest.mark.parametrize("ref", SHIPPED.list(), ids=str)
def test_expected_costs_of_a_luts_own_blocks(ref: LutRef) -> None:
    """With weights left out, as planning once did, 9 to 23 % off."""
    lut = SHIPPED.load(ref.path)
    told = replace(expected_from_lut(lut, str(ref)), entry_ms={}).ms(
        {row.key: row.features for row in lut.entries}
    )
    strays = np.log([told[row.key] / row.ms for row in lut.entries])
    assert np.sqrt((strays**2).mean()) < 0.08


@pytest.fixture(scope="module")
def plain() -> Lut:
    """Its blocks' features tell neither weights nor depthwise MACs."""
    generator = np.random.default_rng(0)
    study = make_study(generator, make_world(generator, slots=3), designs=4, removals=1, segments=1, rounds=5)
    return build_lut(study.inputs, study.models, study.estimation, study.features)


def test_lut_without_weights_does_not_price_them(plain: Lut) -> None:
    features = {row.key: row.features for row in plain.entries}
    expectation = replace(expected_from_lut(plain, "plain"), entry_ms={})
    fuller = {
        key: row.model_copy(update={"params": 10**7, "depthwise_macs": 1}) for key, row in features.items()
    }
    assert expectation.ms(fuller) == expectation.ms(features)


def test_unknown_kind_costs_the_mean_of_known_kinds(plain: Lut) -> None:
    stranger = KeyFeatures(kind="stranger", macs=10**6, traffic_bytes=2**20)
    physics = [physics_ms(stranger, row) for row in plain.meta.prior]
    assert expected_from_lut(plain, "plain").ms({"s": stranger}) == {"s": pytest.approx(np.mean(physics))}


def test_mean_of_three_kinds_by_hand(plain: Lut) -> None:
    """Of 1, 2 and 6 ms a block, of 0.3, 0.1 and 0.2 ms a million MACs, of 8, 0 and 1 ms a MiB."""
    prices = {"a": (1.0, 0.3, 8.0), "b": (2.0, 0.1, 0.0), "c": (6.0, 0.2, 1.0)}
    prior = tuple(
        KindPrior(kind=kind, constant_ms=call, ms_per_mmac=mac, ms_per_mib=mib)
        for kind, (call, mac, mib) in prices.items()
    )
    lut = Lut(plain.meta.model_copy(update={"prior": prior}), plain.entries, plain.models, plain.samples)
    told = expected_from_lut(lut, "by hand").ms(
        {
            "stranger": KeyFeatures(kind="d", macs=10_000_000, traffic_bytes=2**21),
            "known": KeyFeatures(kind="b", macs=10_000_000, traffic_bytes=2**21),
        }
    )
    assert told == pytest.approx({"stranger": 3.0 + 10 * 0.2 + 2 * 3.0, "known": 2.0 + 10 * 0.1})


@pytest.fixture
def posterior() -> Posterior:
    features = {
        f"{kind}({number})": KeyFeatures(kind=kind, macs=number * 10**6, traffic_bytes=number * 2**18)
        for kind in ("conv", "attn")
        for number in (1, 5)
    }
    return Posterior(features, TYPICAL_DEVICE, [("conv(1)", "attn(5)"), ("conv(5)", "attn(1)")])


def test_a_measured_network_conditions_the_covariance(posterior: Posterior) -> None:
    row = posterior.row(("conv(1)", "attn(1)"))
    conditioned = np.linalg.inv(np.linalg.inv(posterior.covariance) + np.outer(row, row) / ROW_SD**2)
    before = posterior.relative_se()
    posterior.learn(row)
    np.testing.assert_allclose(posterior.covariance, conditioned, rtol=1e-6, atol=1e-12)
    assert (posterior.relative_se() <= before).all()


def test_most_informative_network_leaves_least_variance(posterior: Posterior) -> None:
    candidates = np.stack([posterior.row(blocks) for blocks in (("conv(1)",), ("attn(5)", "conv(5)"))])
    targets = np.stack([posterior.row(("attn(5)", "conv(5)", "attn(1)"))])
    left = []
    for row in candidates:
        covariance = np.linalg.inv(np.linalg.inv(posterior.covariance) + np.outer(row, row) / ROW_SD**2)
        left.append(float((targets @ covariance @ targets.T).item()))
    assert most_informative(posterior, candidates, targets) == int(np.argmin(left)) == 1

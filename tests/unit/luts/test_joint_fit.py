"""The joint fit: numbers worked out by hand, simulations of known truth, and which entries are identified."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from luts.estimate.design import identify, partners
from luts.estimate.joint import JointFit, fit_entries
from luts.estimate.latencies import LatencyEstimates
from luts.estimate.likelihood import KIND, FitData, FitDesign, MarginalLikelihood, design_of, solve
from luts.estimate.ratios import AaDifference, LoadGroup, LoadRatio, pooled_load_variance
from luts.format.schema import MIB, KeyFeatures
from tests.support.lut_world import Noise, make_study, make_world

# One network of 2 ms with one block, "a"; its sibling "b" is in none. All is relative to the network's latency.
ENTRY_SD, MISFIT_SD, KIND_SD, SHARED_SD = 0.1, 0.004, 0.3, 0.2
NOISE, BASE_SD, EXPECTED, NATURAL, ALIKE = 0.003**2, 0.4, 1.2, 2.0, 0.5
SCALE = (1.2, 1.5)
HYPER = np.array([ENTRY_SD, MISFIT_SD, KIND_SD, SHARED_SD])


def one_network() -> FitDesign:
    tiny = 1e-9
    return FitDesign(
        keys=("a", "b"),
        kinds=("conv",),
        counts=np.array([[0.5, 0.0]]),
        calls=np.array([[0.5, 0.0]]),
        physics=np.array([[1.0, 0, 0, 0], [1.0, 0, 0, 0]]),
        kernel=np.array([[1.0, ALIKE], [ALIKE, 1.0]]),
        noise=np.array([[NOISE]]),
        call_sd=np.array([BASE_SD, tiny]),
        prior_mean=np.array([EXPECTED, 0, 0, 0]),
        prior_scale=np.array([NATURAL, tiny, tiny, tiny]),
        floor=0.1,
        call_design=np.zeros((2, 4)),
        hyper_index=(KIND,) * 4,
        entry_se=np.zeros(2),
        correlated_se=np.zeros(2),
    )


def test_two_entries_after_one_network_by_hand() -> None:
    """Gaussian conditioning on 1 = base / 2 + a / 2 + error.

    a and b are EXPECTED a priori, with what their kind's constant is uncertain by (0.3 x 2 = 0.6), their own
    deviation and the shared one: variances 0.36 + 1.2^2 (0.01 + 0.04) = 0.432 and 0.36 + 1.5^2 0.05 = 0.4725,
    covariance 0.36 + 1.2 x 1.5 x 0.04 x 0.5 = 0.396. The network is expected to give 0.6, so 0.4 is left to explain
    by a variance of 0.25 x 0.16 + 0.25 x 0.432 + 0.003^2 + 0.004^2 = 0.148025.
    """
    of_a, of_b, both, seen, left = 0.432, 0.4725, 0.396, 0.148025, 0.4
    solution, covariance = solve(one_network(), np.array(SCALE), HYPER)
    se = np.sqrt(np.diag(covariance))
    base, _, a, b, constant = solution[:5]
    assert base == pytest.approx(0.5 * 0.16 * left / seen)
    assert a == pytest.approx(1.2 + 0.5 * of_a * left / seen)
    assert b == pytest.approx(1.2 + 0.5 * both * left / seen)
    assert constant == pytest.approx(1.2 + 0.5 * 0.36 * left / seen)
    assert se[0] ** 2 == pytest.approx(0.16 - (0.5 * 0.16) ** 2 / seen)
    assert se[2] ** 2 == pytest.approx(of_a - (0.5 * of_a) ** 2 / seen)
    assert se[3] ** 2 == pytest.approx(of_b - (0.5 * both) ** 2 / seen)
    assert 0.5 * base + 0.5 * a == pytest.approx(1 - left * (NOISE + MISFIT_SD**2) / seen)


FEATURES = {
    "a": KeyFeatures(kind="conv", macs=4_000_000, depthwise_macs=1_000_000, traffic_bytes=int(MIB)),
    "b": KeyFeatures(kind="conv", macs=8_000_000, traffic_bytes=3 * int(MIB), params=int(MIB)),
    "c": KeyFeatures(kind="head", macs=2_000_000, traffic_bytes=int(MIB)),
}
ROWS = FitData(
    ms=np.array([2.0, 4.0, 3.0]),
    log_covariance=np.array([[4e-6, 1e-6, 0], [1e-6, 9e-6, 0], [0, 0, 1e-6]]),
    blocks=(("a", "c"), ("b", "a", "c"), ("a", "a", "c")),
    boundary_bytes=np.array([0, 2.0 * MIB, 4.0 * MIB]),
)


def test_arrays_of_a_fit_by_hand() -> None:
    design = design_of(ROWS, FEATURES)
    assert (design.keys, design.kinds) == (("a", "b", "c"), ("conv", "head"))
    np.testing.assert_allclose(design.counts, [[1 / 2, 0, 1 / 2], [1 / 4, 1 / 4, 1 / 4], [2 / 3, 0, 1 / 3]])
    np.testing.assert_allclose(design.calls, [[1 / 2, 0], [1 / 4, 2 / 4], [1 / 3, 4 / 3]])
    # of a call, of 10^6 dense and depthwise MACs, of MiB with 8 bytes a parameter; conv's columns, then head's
    np.testing.assert_allclose(
        design.physics, [[1, 3, 1, 1, 0, 0, 0, 0], [1, 8, 0, 11, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2, 0, 1]]
    )
    np.testing.assert_allclose(design.noise, ROWS.log_covariance + 1e-8 * np.eye(3))
    # 3 ms on average: of 8 / 3 blocks, (5 + 13 + 8) / 3 and (1 + 1 + 2) / 3 million MACs, (2 + 13 + 3) / 3 MiB
    sizes = [3 / (8 / 3), 3 / (26 / 3), 3 / (4 / 3), 3 / 6]
    np.testing.assert_allclose(design.prior_scale, sizes * 2)
    np.testing.assert_allclose(design.call_sd, [0.2 * 3, 3 / 2])
    assert design.floor == pytest.approx(0.05 * 3 / (8 / 3))
    # exp(-distance^2 / (2 x 0.5^2)) in the logarithms of MACs, traffic and parameters (1 where there are none)
    squared = math.log(2) ** 2 + math.log(3) ** 2 + math.log(MIB) ** 2
    np.testing.assert_allclose(design.kernel[0], [1, math.exp(-2 * squared), 0], atol=1e-300)


def test_common_constant_by_hand() -> None:
    """Blocks of which nothing but a constant is known: a ridge of base and constant, each relative to its size."""
    features = {
        key: KeyFeatures(kind=kind, macs=0, traffic_bytes=0) for key, kind in (("a", "x"), ("b", "y"))
    }
    rows = FitData(
        np.array([2.0, 4.0]), 1e-6 * np.eye(2), (("a", "b"), ("a", "a", "b", "b", "b")), np.zeros(2)
    )
    base, constant = 0.2 * 3.0, 3.0 / 3.5  # of 3 ms and 3.5 blocks on average
    system = np.array([[base / 2, 2 * constant / 2], [base / 4, 5 * constant / 4]])
    shares = np.linalg.solve(system.T @ system + 0.01 * np.eye(2), system.T @ np.ones(2))
    assert (shares > 0).all()
    design = design_of(rows, features)
    np.testing.assert_allclose(design.prior_mean, [shares[1] * constant, 0, 0, 0] * 2, atol=1e-12)


def test_hyperparameters_maximise_the_marginal_likelihood() -> None:
    """No step of 2 % improves the likelihood by more than the lattice to which the fit rounds allows.

    It is -2 log N(1; expectation, covariance) with weak log-normal priors, written out.
    """
    generator = np.random.default_rng(3)
    blocks = [tuple(generator.choice(list("abc"), generator.integers(2, 9))) for _ in range(25)]
    ms = np.array([0.3 + sum({"a": 0.5, "b": 1.3, "c": 0.4}[key] for key in keys) for keys in blocks])
    ms = ms * np.exp(generator.normal(0, 0.01, len(ms)))
    rows = FitData(ms, 1e-6 * np.eye(len(ms)), tuple(blocks), np.zeros(len(ms)))
    design = design_of(rows, FEATURES)
    scale = np.maximum(design.physics @ design.prior_mean, design.floor)

    def cost(logs: np.ndarray) -> float:
        entry, misfit, kind, shared = np.exp(logs)
        of_entries = np.outer(scale, scale) * (entry**2 * np.eye(3) + shared**2 * design.kernel)
        of_kinds = design.physics @ np.diag((kind * design.prior_scale) ** 2) @ design.physics.T
        covariance = (
            design.counts @ (of_entries + of_kinds) @ design.counts.T
            + design.calls @ np.diag(design.call_sd**2) @ design.calls.T
            + design.noise
            + misfit**2 * np.eye(len(ms))
        )
        mean = design.counts @ design.physics @ design.prior_mean
        density = multivariate_normal(mean, covariance).logpdf(np.ones(len(ms)))
        prior = ((logs - np.log([0.1, 0.004, 0.3, 0.1])) / [1.0, 1.0, 0.7, 1.0]) ** 2
        return float(-2 * density + prior.sum())

    found = np.log(MarginalLikelihood(design, scale).maximise())
    assert np.exp(found[1]) == pytest.approx(0.01, rel=0.4), "the misfit that was put in"
    for direction in np.vstack([np.eye(4), -np.eye(4)]):
        assert cost(found + 0.3 * direction) > cost(found)
        assert cost(found + 0.02 * direction) > cost(found) - 0.01


def test_pooled_load_variance_by_hand() -> None:
    """Without sampling errors the likelihood has its maximum where V = sum of squares over degrees of freedom.

    The starting value is two degrees of 0.008^2. Two copies differ by 2 V: (0.02^2 + 0.02^2 + 0.01^2) / 2 = 4.5e-4
    with three degrees. Three loads of a model, centre unknown, each 1.5 V: 0.51, 0.52, 0.53 stray from their mean
    by 2e-4 in all, over 1.5, with two degrees.
    """
    pairs = LoadGroup(np.array([0.02, -0.02, 0.01]), np.zeros(3), np.full(3, 2.0), centre=0.0)
    loads = LoadGroup(np.array([0.51, 0.52, 0.53]), np.zeros(3), np.full(3, 1.5))
    alone = LoadGroup(np.array([9.0]), np.zeros(1), np.full(1, 1.5))
    pooled = pooled_load_variance([pairs, loads, alone])
    variance = (2 * 0.008**2 + 4.5e-4 + 2e-4 / 1.5) / (2 + 3 + 2)
    assert pooled.sd == pytest.approx(math.sqrt(variance), rel=1e-3)
    assert pooled.df == 7


def test_sampling_errors_are_not_taken_for_load_variance() -> None:
    """With errors alike everywhere, 2 V + se^2 is what the data say; so many pairs leave the start no weight."""
    values = np.tile([0.02, -0.02], 5000)
    pooled = pooled_load_variance(
        [LoadGroup(values, np.full(10_000, 0.012), np.full(10_000, 2.0), centre=0.0)]
    )
    assert 2 * pooled.sd**2 + 0.012**2 == pytest.approx(0.02**2, rel=0.01)


def load(model: str, batch: int, ratio: float, se: float, shared: float) -> LoadRatio:
    return LoadRatio(model, batch, 0, ratio, se, 20, loads_each=1.5, shared_variance=shared)


def test_ratios_and_their_covariance_by_hand() -> None:
    """Model a is in sessions 0 and 1, b in session 1 alone; what they share is the reference of session 1."""
    loads = [
        load("a", 0, 0.10, 0.003, 1e-6),
        load("a", 1, 0.12, 0.005, 2e-6),
        load("b", 1, 0.30, 0.004, 2e-6),
    ]
    pairs = [AaDifference(batch, 0, 0.01, 0.002, 20) for batch in (0, 1)]
    estimates = LatencyEstimates("r", [], [])
    vars(estimates).update(loads=loads, differences=pairs)
    v = estimates.load_variance.sd**2
    whole = {"a0": 1.5 * v + 9e-6, "a1": 1.5 * v + 25e-6, "b1": 1.5 * v + 16e-6}
    weight = (1 / whole["a0"]) / (1 / whole["a0"] + 1 / whole["a1"])
    assert estimates.ratios["a"].log_ratio == pytest.approx(weight * 0.10 + (1 - weight) * 0.12)
    of_a = weight**2 * whole["a0"] + (1 - weight) ** 2 * whole["a1"]
    assert estimates.ratios["a"].se ** 2 == pytest.approx(of_a)
    assert estimates.ratios["b"].se ** 2 == pytest.approx(whole["b1"])
    shared = (1 - weight) * (0.5 * v + 2e-6)
    np.testing.assert_allclose(estimates.covariance, [[of_a, shared], [shared, whole["b1"]]])
    assert estimates.noise_floor == pytest.approx(1.4826 * 0.01)
    # a t interval with the degrees of the pairs (2), of a's second load (1) and of the starting value (2)
    assert estimates.load_variance.df == 5
    half = (estimates.ratios["b"].high - estimates.ratios["b"].low) / 2
    assert half == pytest.approx(2.570582 * math.sqrt(whole["b1"]), rel=1e-4)


FEATURES_JOINT = {
    "conv(a)": KeyFeatures(kind="conv", macs=10_000_000, traffic_bytes=2 * 2**20),
    "conv(b)": KeyFeatures(kind="conv", macs=30_000_000, traffic_bytes=1 * 2**20),
    "attn(c)": KeyFeatures(kind="attn", macs=20_000_000, traffic_bytes=3 * 2**20),
    "attn(d)": KeyFeatures(kind="attn", macs=50_000_000, traffic_bytes=2 * 2**20),
}
COST = {"conv(a)": 0.30, "conv(b)": 0.55, "attn(c)": 0.90, "attn(d)": 1.60}


def fit(blocks: list[tuple[str, ...]], moved: list[int], noise_sd: float = 1e-5, seed: int = 0) -> JointFit:
    generator = np.random.default_rng(seed)
    truth = np.array([sum(COST[key] for key in keys) for keys in blocks]) + 0.25 * np.array(moved) / MIB + 0.1
    return fit_entries(
        FitData(
            ms=truth * np.exp(generator.normal(0, noise_sd, len(blocks))),
            log_covariance=noise_sd**2 * np.eye(len(blocks)),
            blocks=tuple(blocks),
            boundary_bytes=np.array(moved, dtype=float),
        ),
        FEATURES_JOINT,
    )


def many_models(count: int = 60, keys: tuple[str, ...] = tuple(COST)) -> list[tuple[str, ...]]:
    generator = np.random.default_rng(7)
    return [
        tuple(key for key in keys for _ in range(generator.integers(0, 4))) or (keys[0],)
        for _ in range(count)
    ]


def test_without_noise_base_entries_and_transfer_are_recovered() -> None:
    blocks = many_models()
    moved = np.random.default_rng(8).integers(0, 8 * 2**20, len(blocks)).tolist()
    joint = fit(blocks, moved)
    assert dict(zip(joint.keys, joint.ms.tolist(), strict=True)) == pytest.approx(COST, rel=0.01)
    assert joint.base_ms == pytest.approx(0.1, abs=0.01)
    assert joint.transfer_ms_per_mib == pytest.approx(0.25, rel=0.02)


def test_no_data_moved_costs_nothing() -> None:
    assert fit(many_models(), [0] * 60).transfer_ms_per_mib == 0.0


def test_unmeasured_key_rests_on_physics() -> None:
    joint = fit(many_models(keys=("conv(a)", "conv(b)", "attn(c)")), [0] * 60)
    position = joint.keys.index("attn(d)")
    assert 0.7 < joint.ms[position] < 3.0
    assert joint.se[position] > 5 * joint.se[joint.keys.index("attn(c)")]


def test_entries_and_coefficients_are_never_negative() -> None:
    joint = fit(
        [("conv(a)", "attn(c)"), ("conv(b)", "attn(c)"), ("conv(a)", "attn(d)")], [0, 0, 0], noise_sd=0.3
    )
    assert (joint.ms >= 0).all()
    assert joint.base_ms >= 0
    assert all(min(row.constant_ms, row.ms_per_mmac, row.ms_per_mib) >= 0 for row in joint.prior.values())


@pytest.mark.parametrize("seed", [136, 850])
def test_rounding_makes_no_negative_cost(seed: int) -> None:
    """Of 1,500 such data seven were solved with a cost of about -1e-18, here of a call and of a kind's constant."""
    generator = np.random.default_rng(seed)
    count = int(generator.integers(3, 12))
    blocks = [tuple(generator.choice(list(COST), int(generator.integers(1, 6)))) for _ in range(count)]
    joint = fit(blocks, [int(moved) for moved in generator.integers(0, 8 * 2**20, count)], 0.2, seed)
    assert min(joint.base_ms, joint.transfer_ms_per_mib, *joint.ms) >= 0


def test_one_row_is_enough_to_scale_the_prior() -> None:
    joint = fit([("conv(a)", "conv(b)", "attn(c)", "attn(d)")], [0])
    assert joint.ms.sum() + joint.base_ms == pytest.approx(3.45, rel=0.1)


def test_misfit_of_additivity_is_found() -> None:
    generator = np.random.default_rng(9)
    world = make_world(generator)
    quiet = Noise(load_sd=0.0005, round_sd=0.002, outlier_share=0.0)
    misfits = [
        study.lut().meta.misfit_sd
        for study in (
            make_study(generator, world, designs=60, noise=quiet, misfit_sd=misfit)
            for misfit in (0.001, 0.02)
        )
    ]
    assert misfits[0] < 0.006
    assert misfits[1] == pytest.approx(0.02, rel=0.35)


@pytest.mark.parametrize(
    ("slots", "fixed", "designs", "misfit_sd", "moved_bytes"),
    [(8, 0, 30, 0.0, 0), (12, 3, 30, 0.004, 4 << 20), (8, 0, 12, 0.004, 0)],
)
def test_entry_intervals_cover_the_truth(
    slots: int, fixed: int, designs: int, misfit_sd: float, moved_bytes: int
) -> None:
    hits = []
    for seed in range(25):
        generator = np.random.default_rng(seed)
        world = make_world(generator, slots=slots, fixed=fixed)
        study = make_study(
            generator,
            world,
            designs=designs,
            misfit_sd=misfit_sd,
            moved_bytes=moved_bytes,
            noise=Noise(drift_sd=0.0, outlier_share=0.02),
            rounds=12,
        )
        lut = study.lut()
        hits += [entry.ci_low <= world.entry_ms[entry.key] <= entry.ci_high for entry in lut.entries]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_held_out_error_is_near_the_noise() -> None:
    generator = np.random.default_rng(11)
    study = make_study(generator, make_world(generator), designs=40, heldout=25)
    lut = study.lut()
    assert lut.meta.heldout_error is not None
    assert lut.meta.heldout_error.mape < 0.01
    assert lut.meta.heldout_error.within_5 == 1.0


def siblings() -> tuple[dict[str, KeyFeatures], dict[str, float]]:
    """Blocks of six sizes with two kernels each; how far a size strays from physics its two kernels share."""
    features, cost = {}, {}
    for size in range(6):
        stray = (1.35, 0.7, 1.2, 0.75, 1.3, 0.8)[size]
        for kernel in (3, 5):
            macs = round(1e6 * 3**size * (1 + 0.02 * kernel))
            key = f"mb(size={size},k={kernel})"
            features[key] = KeyFeatures(kind="mb", macs=macs, traffic_bytes=macs // 8, params=macs // 100)
            cost[key] = stray * 0.02 * macs / 1e6
    return features, cost


def test_unmeasured_block_deviates_like_its_sibling() -> None:
    features, cost = siblings()
    unseen = "mb(size=4,k=5)"
    generator = np.random.default_rng(5)
    keys = [key for key in features if key != unseen]
    blocks = [
        tuple(key for key in keys for _ in range(generator.integers(0, 3))) or (keys[0],) for _ in range(60)
    ]
    ms = np.array([sum(cost[key] for key in row) for row in blocks]) * np.exp(generator.normal(0, 1e-4, 60))
    rows = FitData(ms, 1e-8 * np.eye(60), tuple(blocks), np.zeros(60))
    joint = fit_entries(rows, features)
    entries = dict(zip(joint.keys, joint.ms.tolist(), strict=True))
    assert entries[unseen] == pytest.approx(cost[unseen], rel=0.05)
    assert joint.shared_sd > 3 * joint.entry_sd
    stranger = features | {unseen: features[unseen].model_copy(update={"kind": "other"})}
    alone = fit_entries(rows, stranger)
    assert abs(alone.ms[alone.keys.index(unseen)] / cost[unseen] - 1) > 0.1


def test_depthwise_macs_have_their_own_price() -> None:
    generator = np.random.default_rng(6)
    features, cost = {}, {}
    for number in range(10):
        dense, depthwise = (int(generator.uniform(1e6, 2e7)) for _ in range(2))
        key = f"mb({number})"
        features[key] = KeyFeatures(
            kind="mb", macs=dense + depthwise, traffic_bytes=2**20, depthwise_macs=depthwise
        )
        cost[key] = 0.01 * dense / 1e6 + 0.05 * depthwise / 1e6
    blocks = many_models(keys=tuple(cost))
    ms = np.array([sum(cost[key] for key in row) for row in blocks])
    joint = fit_entries(FitData(ms, 1e-8 * np.eye(60), tuple(blocks), np.zeros(60)), features)
    assert joint.prior["mb"].ms_per_mmac == pytest.approx(0.01, rel=0.1)
    assert joint.prior["mb"].ms_per_depthwise_mmac == pytest.approx(0.05, rel=0.1)


def test_last_digits_of_rows_change_nothing() -> None:
    """Other machines round differently; verification there must find the same entries."""
    generator = np.random.default_rng(12)
    for seed in range(10):
        blocks = many_models(25)
        truth = np.array([sum(COST[key] for key in keys) for keys in blocks])
        ms = truth * np.exp(np.random.default_rng(seed).normal(0, 0.01, 25))
        one, other = (
            fit_entries(FitData(values, 1e-4 * np.eye(25), tuple(blocks), np.zeros(25)), FEATURES_JOINT)
            for values in (ms, ms * (1 + generator.normal(0, 1e-15, 25)))
        )
        np.testing.assert_allclose(one.ms, other.ms, rtol=1e-10)
        np.testing.assert_allclose(one.se, other.se, rtol=1e-10)
        assert one.misfit_sd == other.misfit_sd


CHAIN = [
    ("stem", "a", "a", "head"),
    ("stem", "a", "head"),
    ("stem", "b", "head"),
    ("stem", "b", "b", "a", "head"),
]
"""All models have one stem and one head, so that only the sum of both is known."""


def test_blocks_of_all_models_are_a_sum():
    assert identify(["a", "b", "head", "never", "stem"], CHAIN) == {
        "a": "alone",
        "b": "alone",
        "head": "sum",
        "never": "prior",
        "stem": "sum",
    }
    together = partners(["a", "b", "head", "never", "stem"], CHAIN)
    assert together.keys() == {"head", "stem"}
    assert all(len(names) == 1 for names in together.values())
    assert together["stem"][0] in ("base", "head")


def test_removal_identifies_a_block():
    assert identify(["head"], [*CHAIN, ("stem", "a")])["head"] == "alone"


def test_neighbours_of_one_width_are_a_sum():
    """Wide or narrow stem, each followed by a block of its own: the pair's sum is all there is."""
    rows = [
        ("wide", "from_wide"),
        ("narrow", "from_narrow"),
        ("wide", "from_wide", "x"),
        ("narrow", "from_narrow"),
    ]
    keys = ["from_narrow", "from_wide", "narrow", "wide", "x"]
    together = partners(keys, rows)
    assert identify(keys, rows)["x"] == "alone"
    assert together["wide"] == ("from_wide",)
    assert together["from_narrow"] == ("narrow",)


def test_fewer_models_than_blocks_identify_none():
    rows = [("a", "b"), ("b", "c")]
    assert set(identify(["a", "b", "c"], rows).values()) == {"sum"}

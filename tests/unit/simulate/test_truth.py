"""The simulated ground truth: additive where it says so, context as large as asked for, the same every time."""

import random

import numpy as np
import pytest

from luts.format.errors import UsageError
from luts.format.latency import latency_ms
from orchestrator.simulate.device import (
    SCENARIOS,
    GroundTruth,
    Scenario,
    TrueCosts,
    find_scenario,
    parse_scenario,
)
from search.blocks import boundary_bytes, parse_key, parse_keys
from search.spaces import get_space
from tests.support.errors import raises

XXS = get_space("autovit-xxs")
KEYS = [XXS.sample(random.Random(seed), (256,)).keys() for seed in range(100)]


def test_without_context_blocks_add_up() -> None:
    costs = TrueCosts(seed=3)
    truth = GroundTruth(costs)
    for blocks in KEYS[:10]:
        entries = {key: truth.entry_ms(key) for key in blocks}
        handed = boundary_bytes(parse_keys(blocks))
        expected = latency_ms(entries, costs.base_ms, costs.transfer_ms_per_mib, blocks, handed)
        assert truth.context_ms(blocks) == 0.0
        assert truth.latency_ms(blocks) == pytest.approx(expected, rel=1e-12)


def test_entries_follow_physics_by_hand() -> None:
    key = "conv(in=3,out=16,k=3,s=2)@64"
    macs, traffic = 3 * 16 * 9 * 32 * 32, (3 * 64 * 64 + 16 * 32 * 32) * 4
    moved = traffic + 8 * (3 * 16 * 9 + 2 * 16)
    assert parse_key(key).macs().total == macs
    costs = TrueCosts(constant_ms=1.0, ms_per_mmac=2.0, ms_per_mib=4.0, deviation_sd=0.0)
    assert GroundTruth(costs).entry_ms(key) == pytest.approx(1.0 + 2.0 * macs / 1e6 + 4.0 * moved / 2**20)


def test_entries_stray_from_physics_as_far_as_asked() -> None:
    plain, strayed = GroundTruth(TrueCosts(deviation_sd=0.0)), GroundTruth(TrueCosts(deviation_sd=0.15))
    keys = [block.key for block in XXS.block_specs((256,))]
    strays = np.log([strayed.entry_ms(key) / plain.entry_ms(key) for key in keys])
    assert strays.std() == pytest.approx(0.15, rel=0.2)
    other = GroundTruth(TrueCosts(deviation_sd=0.15, seed=1))
    assert np.corrcoef(strays, np.log([other.entry_ms(k) / plain.entry_ms(k) for k in keys]))[0, 1] < 0.4


def test_context_of_neighbours() -> None:
    costs = TrueCosts(pair_sd=0.02, deviation_sd=0.0)
    truth = GroundTruth(costs)
    assert truth.additive_ms(KEYS[0]) == GroundTruth(costs.additive()).latency_ms(KEYS[0])
    shares = np.array([truth.context_ms(blocks) / truth.latency_ms(blocks) for blocks in KEYS])
    assert 0.003 < shares.std() < 0.012
    twice = GroundTruth(costs.model_copy(update={"pair_sd": 0.04}))
    assert twice.context_ms(KEYS[0]) == pytest.approx(2 * truth.context_ms(KEYS[0]))


def test_spilling_needs_a_full_cache() -> None:
    small, large = (GroundTruth(TrueCosts(spill_ms_per_mib=0.1, cache_mib=mib)) for mib in (1.0, 64.0))
    assert all(large.context_ms(blocks) == 0.0 for blocks in KEYS[:10])
    assert all(small.context_ms(blocks) > 0.0 for blocks in KEYS[:10])


def test_threads_share_all_but_the_serial_part() -> None:
    costs = TrueCosts(
        serial_share=0.25, base_ms=1.0, transfer_ms_per_mib=0.0, spill_ms_per_mib=0.1, pair_sd=0.02
    )
    one, four = GroundTruth(costs), GroundTruth(costs, threads=4)
    blocks = KEYS[0]
    assert four.latency_ms(blocks) - 1.0 == pytest.approx((0.25 + 0.75 / 4) * (one.latency_ms(blocks) - 1.0))


def test_an_unknown_block_is_an_error() -> None:
    with raises("unknown_block_kind"):
        GroundTruth(TrueCosts()).latency_ms(["warp(in=3)@64"])


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_are_json(name, tmp_path) -> None:
    scenario = find_scenario(name)
    assert scenario.name == name
    path = tmp_path / "mine.json"
    path.write_text(scenario.model_dump_json())
    assert find_scenario(str(path)) == scenario


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"name": "Up Here"}', "name = 'Up Here': String should match"),
        ('{"name": "a", "noise": {"load_sd": -1}}', "noise.load_sd = -1: should be greater"),
        ('{"name": "a", "speed": 1}', "speed is not a field"),
        ('{"name": "a", "costs": {"base_ms": Infinity}}', "costs.base_ms"),
        (" " * 70_000, "at most 65536 bytes"),
    ],
)
def test_what_is_no_scenario_says_why(document, message) -> None:
    with pytest.raises(UsageError, match=message):
        parse_scenario(document)


def test_unknown_and_unreadable_scenarios(tmp_path) -> None:
    with raises("unknown_scenario"):
        find_scenario("loud")
    with raises("unreadable_file"):
        find_scenario(str(tmp_path / "none.json"))
    assert Scenario(name="plain").noise.load_sd == 0.0

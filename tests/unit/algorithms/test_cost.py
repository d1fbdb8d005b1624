"""Compiled prices against the latency model and the blocks themselves."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luts.format.latency import LatencyModel
from search.algorithms import CompiledSpace, Constraints, LutPrice
from search.algorithms.feasible import ChannelLimits
from search.blocks import peak_activation_bytes
from search.spaces import get_space, list_spaces
from tests.support.errors import raises
from tests.support.search_world import NANO, XXS, make_model, make_price

SIBLINGS = ("autovit-nano.ssdlite", "autovit-nano.deeplab", "mobilevit.ssdlite", "autovit-xxs.deeplablite")
"""Spaces whose networks have another task's head; SSDLite's stands beside several stages' ends."""

SPACES = {space.name: space for space in (*list_spaces(), *map(get_space, SIBLINGS))}


@pytest.fixture(scope="module")
def compiled():
    """Each space with two LUTs: one with a conformal interval, one with nothing but its entries' own."""
    models = (make_model(*SPACES.values()), make_model(*SPACES.values(), salt="other", margin=None))
    prices = [LutPrice(model, str(number)) for number, model in enumerate(models)]
    return models, {name: CompiledSpace(space, prices, 0.9) for name, space in SPACES.items()}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(SPACES)), seed=st.integers(0, 2**32))
def test_costs_agree_with_the_latency_model_and_the_blocks(compiled, name, seed):
    models, spaces = compiled
    arch = SPACES[name].sample(random.Random(seed))
    codes = spaces[name].encode([arch])
    assert spaces[name].decode(codes) == [arch]
    priced = spaces[name].priced(codes)[0]
    latencies = priced.latencies
    for model, (ms, high_ms) in zip(models, latencies, strict=True):
        blocks, sent = arch.keys(), arch.boundary_bytes()
        assert ms == pytest.approx(model.predict(blocks, sent).ms, rel=1e-9)
        assert high_ms == pytest.approx(model.bound_ms(blocks, sent, 0.9), rel=1e-9)
    assert (priced.params, priced.macs) == (arch.params(), arch.macs().conv_linear)
    assert priced.memory_bytes == peak_activation_bytes(arch.blocks())


def test_memory_order_does_not_change_costs(compiled):
    space = compiled[1]["autovit-xxs"]
    rng = random.Random(0)
    few = space.encode([XXS.sample(rng) for _ in range(50)])
    many = few[np.random.default_rng(0).integers(0, 50, 20_001)]
    rows = {row.tobytes(): ms for row, ms in zip(few, space.channel(few), strict=True)}
    assert (space.channel(many) == [rows[row.tobytes()] for row in many]).all()
    assert (space.channel(np.ascontiguousarray(many)) == space.channel(np.asfortranarray(many))).all()
    assert (space.price(many).latency_ms[0] == space.channel(many)).all()
    assert space.priced(few[:0]) == ()


def test_invalid_rows_have_no_price(compiled):
    space = compiled[1]["autovit-nano"]
    whole = space.encode(
        [arch for arch in [NANO.sample(random.Random(seed)) for seed in range(9)] if len(arch.stages) == 4]
    )[:1]
    shrinking, hole = whole.copy(), whole.copy()
    shrinking[0, 1:3] = [1, 0]
    hole[0, 3] = 16
    assert not np.isnan(space.channel(whole)).any()
    assert np.isnan(space.channel(np.concatenate([shrinking, hole]))[1])
    with raises("invalid_codes"):
        space.channel(whole + 16)
    with raises("invalid_codes"):
        space.channel(whole[:, :3])


def test_architectures_outside_the_space_are_refused(compiled):
    space = compiled[1]["autovit-nano"]
    arch = NANO.sample(random.Random(0))
    for other in (arch.with_classes(3), arch.with_resolution(32), XXS.sample(random.Random(0))):
        with raises("arch_not_in_space"):
            space.encode([other])


def test_a_lut_that_lacks_blocks_is_refused():
    model = make_model()
    lacking = sorted(model.costs)[3:5]
    costs = {key: cost for key, cost in model.costs.items() if key not in lacking}
    partial = LutPrice(dataclasses.replace(model, costs=costs), "x")
    with raises("lut_lacks_blocks") as caught:
        CompiledSpace(NANO, partial)
    assert all(key in str(caught.value) for key in lacking)
    with raises("lut_lacks_blocks"):
        CompiledSpace(NANO.with_classes(11), make_price())


def test_part_of_a_space(compiled):
    part = dataclasses.replace(XXS.restricted((192,)), heads=("mbpool",), stage_counts=(7,))
    arch = part.sample(random.Random(2))
    models, whole = compiled
    space = CompiledSpace(part, LutPrice(models[0], "x"), 0.9)
    ms = space.channel(space.encode([arch]))[0]
    assert ms == pytest.approx(models[0].predict(arch.keys(), arch.boundary_bytes()).ms)
    assert whole["autovit-xxs"].channel(whole["autovit-xxs"].encode([arch]))[0] == pytest.approx(ms)


def test_blocks_without_cost_leave_the_base():
    costs = {key: dataclasses.replace(cost, ms=0.0) for key, cost in make_model().costs.items()}
    space = CompiledSpace(NANO, LutPrice(LatencyModel(0.7, 0.0, costs, 0.0, 0.95), "x"))
    assert space.channel(space.encode([NANO.sample(random.Random(1))])) == pytest.approx([0.7])


def test_each_lut_needs_a_latency(compiled):
    space = compiled[1]["autovit-nano"]
    with raises("latency_count"):
        ChannelLimits.of(space, Constraints(latency_ms=1))
    limits = Constraints(latency_ms=1, further_latency_ms=(2,), macs=7, memory_bytes=9)
    assert ChannelLimits.of(space, limits) == ChannelLimits((1, 3, 5), (1, 2, 7), 9)
    point = limits.model_copy(update={"cautious": False})
    assert ChannelLimits.of(space, point).channels == (0, 2, 5)

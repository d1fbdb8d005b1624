"""AutoViT's Table 1 and joint space, and draws within a range of parameters."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import random

import pytest
from scipy import stats

from search.blocks import MobileViTLayer
from search.spaces import get_arch, get_space
from search.spaces.scope import ParameterRangeSampler
from tests.support.errors import raises

# Table 1, row by row: widths, and depths, and heads.
MBCONV_DEPTHS = ((1, 2), (2, 3), (2, 3))
PRINTED = {
    "xxs": (
        ((16, 24), (24, 32), (32, 48)),
        ((48, 64), (64, 80), (80, 96), (96, 112)),
        (2, 3, 4),
    ),
    "xs": (
        ((24, 32), (32, 48), (48, 64)),
        ((64, 80), (80, 96), (96, 112), (112, 128)),
        (4, 5, 6),
    ),
    "s": (
        ((24, 32), (32, 48), (48, 64)),
        ((64, 96), (96, 128), (128, 160), (160, 192)),
        (7, 8, 9),
    ),
}


@pytest.mark.parametrize("size", PRINTED)
def test_choices_are_those_of_table_1(size):
    mbconvs, transformers, heads = PRINTED[size]
    space = get_space(f"autovit-{size}-table1")
    stem, *rest = [dict(stage.choices) for stage in space.stages]
    assert stem == {"width": (16, 24)}
    assert rest[:3] == [
        {"width": widths, "depth": depths, "kernel": (3,)}
        for widths, depths in zip(mbconvs, MBCONV_DEPTHS, strict=True)
    ]
    assert rest[3:] == [
        {"width": widths, "depth": (2, 3, 4, 5), "heads": heads, "mlp_ratio": (1.5, 2.0), "kernel": (3,)}
        for widths in transformers
    ]
    assert [count - 4 for count in space.stage_counts] == [3, 4]
    assert (space.resolutions, space.heads) == ((256,), ("mbpool",))


@pytest.mark.parametrize(
    ("size", "millions", "printed"), [("xxs", 2.45, 1.8), ("xs", 3.14, 2.5), ("s", 7.47, 6.3)]
)
def test_mbpool_networks_are_larger_than_printed(size, millions, printed):
    arch = get_arch(f"autovit-{size}-paper")
    assert round(dataclasses.replace(arch, head="mbpool").params() / 1e6, 2) == millions
    assert round(arch.params() / 1e6, 1) == printed


def test_paper_xxs_has_more_stages_than_table_1():
    document = get_arch("autovit-xxs-paper").to_document() | {"head": "mbpool"}
    with raises("invalid_architecture"):
        get_space("autovit-xxs-table1").from_document(document)


@pytest.mark.parametrize(("size", "rule"), [("xxs", 0), ("xs", 2), ("s", 1)])
def test_joint_space_has_every_network_of_the_three(size, rule):
    joint, space = get_space("autovit-joint"), get_space(f"autovit-{size}-table1")
    rng = random.Random(size)
    for _ in range(50):
        arch = space.sample(rng)
        stages = {
            name: values | ({"rule": rule} if name.startswith("transformer") else {})
            for name, values in arch.to_document()["stages"].items()
        }
        same = joint.from_document(arch.to_document() | {"space": "autovit-joint", "stages": stages})
        assert same.keys() == arch.keys()


def test_rules_decide_the_dimension():
    """Of 96 channels: 96 as in XXS, 1.5 x 96 - 16 as in S, 1.5 x 96 as in XS."""
    joint = get_space("autovit-joint")
    rng = random.Random(1)
    seen = set()
    while len(seen) < 3:
        arch = joint.sample(rng)
        for values, stage in zip(arch.stages[4:], joint.stages[4:], strict=False):
            if stage.width(values) == 96:
                rule = stage.value(values, "rule")
                layers = {b.dim for b in arch.blocks() if isinstance(b, MobileViTLayer)}
                assert {0: 96, 1: 128, 2: 144}[rule] in layers
                seen.add(rule)


NANO = get_space("autovit-nano")
PARAMS = {arch: arch.params() for arch in NANO}


def test_extremes_are_those_of_the_space():
    draws = ParameterRangeSampler(NANO, 0, 1 << 40)
    assert (draws.least, draws.most) == (min(PARAMS.values()), max(PARAMS.values()))
    assert draws.heads == {3: ("fc",), 4: ("fc",)}


@pytest.mark.parametrize(("low", "high", "stages"), [(90_000, 96_000, 3), (190_000, 191_000, 4)])
def test_draws_are_uniform_among_all_within(low, high, stages):
    within = {a for a, params in PARAMS.items() if low <= params <= high and len(a.stages) == stages}
    draws, rng = ParameterRangeSampler(NANO, low, high), random.Random(0)
    counts = collections.Counter(draws.draw(rng, stages, 64) for _ in range(60 * len(within)))
    assert set(counts) == within
    assert len(within) > 5
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_range_of_one_network_and_empty_range():
    ordered = sorted(set(PARAMS.values()))
    params = next(p for p in ordered if list(PARAMS.values()).count(p) == 1)
    (arch,) = (a for a, own in PARAMS.items() if own == params)
    assert ParameterRangeSampler(NANO, params, params).draw(random.Random(0), len(arch.stages), 64) == arch
    gap = next(low + 1 for low, high in itertools.pairwise(ordered) if high > low + 1)
    assert ParameterRangeSampler(NANO, gap, gap).heads == {}

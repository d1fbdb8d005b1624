"""Spaces of papers: AutoViT's Table 1 and joint space, and NAS-Bench-Macro."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import random
from pathlib import Path

import pytest
import torch
from scipy import stats

from search.blocks import MobileViTLayer
from search.networks import build_network
from search.spaces import get_arch, get_space
from search.spaces.nasbench_macro import key_of
from search.spaces.scope import ParameterRangeSampler
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises
from tests.support.search_world import arch_of

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


SPACE = get_space("nasbench-macro")
SHARED = Path(os.environ.get("BLOCKTIME_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
TABLE = SHARED / "nas-bench-macro.json"


def test_parameters_and_macs_are_the_benchmarks():
    if not TABLE.is_file():
        pytest.skip(
            f"{TABLE} is not there; set BLOCKTIME_SHARED_DATA to the directory of nas-bench-macro.json"
        )
    table = json.loads(TABLE.read_text())
    archs = list(SPACE)
    assert {key_of(arch) for arch in archs} == set(table)
    assert len(table) == SPACE.size() == 3**8
    for arch in archs:
        row = table[key_of(arch)]
        assert (arch.params(), arch.macs().total) == (row["params"], row["flops"]), key_of(arch)


def test_smallest_network_by_hand():
    """Worked out by hand: convolutions, BN, and the classifier of 1280 features."""
    arch = arch_of("00000000")
    assert [key.partition("@")[0] for key in arch.keys()] == [
        "conv.relu(in=3,out=32,k=3,s=1)",
        "conv.linear(in=32,out=64,k=1,s=2)",
        "conv.linear(in=64,out=128,k=1,s=2)",
        "conv.linear(in=128,out=256,k=1,s=2)",
        "head.conv.relu(in=256,classes=10,mid=1280)",
    ]
    convolutions = 27 * 32 + 32 * 64 + 64 * 128 + 128 * 256 + 256 * 1280
    assert arch.params() == convolutions + 2 * (32 + 64 + 128 + 256 + 1280) + 1280 * 10 + 10


def test_identities_that_change_the_shape_have_weights():
    supernet = Supernet(SPACE, seed=1)
    slots = [slot for slot, _ in supernet.path(arch_of("01020100"))]
    assert slots == [
        "stem_0",
        "place0_identity",
        "place1_mbconv",
        "place2_identity",
        "place3_mbconv",
        "place5_mbconv",
        "head_relu-conv",
    ]
    images = torch.randn(4, 3, 32, 32)
    for _ in range(3):
        arch = SPACE.sample(random.Random(_))
        network = supernet.extract(arch).train()
        assert torch.allclose(network(images), supernet(images, arch), atol=1e-5)


def test_smaller_block_is_a_slice_of_the_larger():
    supernet = Supernet(SPACE, seed=2)
    small, large = (
        dict(supernet.extract(arch_of(key)).named_parameters()) for key in ("01000000", "02000000")
    )
    kernel, half = "2.depthwise.conv.weight", 3 * 64
    assert small[kernel].shape == (half, 1, 3, 3)
    assert torch.equal(small[kernel], large[kernel][:half, :, 1:4, 1:4])
    assert torch.equal(small["2.expand.conv.weight"], large["2.expand.conv.weight"][:half])


def test_every_activation_is_a_relu():
    names = {type(part).__name__ for part in build_network(arch_of("12012012").blocks()).modules()}
    assert "ReLU" in names
    assert "SiLU" not in names

"""Table 1 of AutoViT with nothing added, and the space of section 5.2 that holds its three columns."""

import dataclasses
import random

import pytest

from search.blocks import MobileViTLayer
from search.spaces import get_arch, get_space
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
def test_what_is_searched_is_what_table_1_lists(size):
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
def test_with_table_1s_classifier_the_networks_are_larger_than_table_2_prints(size, millions, printed):
    arch = get_arch(f"autovit-{size}-paper")
    assert round(dataclasses.replace(arch, head="mbpool").params() / 1e6, 2) == millions
    assert round(arch.params() / 1e6, 1) == printed


def test_the_paper_s_smallest_network_has_more_stages_than_table_1_lists():
    document = get_arch("autovit-xxs-paper").to_document() | {"head": "mbpool"}
    with raises("invalid_architecture"):
        get_space("autovit-xxs-table1").from_document(document)


@pytest.mark.parametrize(("size", "rule"), [("xxs", 0), ("xs", 2), ("s", 1)])
def test_the_joint_space_has_every_network_of_the_three(size, rule):
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


def test_a_rule_says_what_dimension_a_stage_has():
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

"""NAS-Bench-Macro's space against the benchmark's own table, and as a supernet."""

import json
import os
import random
from pathlib import Path

import pytest
import torch

from search.networks import build_network
from search.spaces import get_space
from search.spaces.nasbench_macro import arch_of, key_of
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

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


@pytest.mark.parametrize("key", ["0000000", "000000000", "00000003", "abc", ""])
def test_malformed_benchmark_key_is_refused(key):
    with raises("unknown_network"):
        arch_of(key)


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


def test_smaller_inverted_residual_is_a_slice_of_the_larger():
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

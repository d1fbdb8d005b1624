"""Keys of operators: one text each, bounded, and all that the joint fit needs."""

import numpy as np
import pytest

from luts.estimate.joint import fit_entries
from luts.estimate.likelihood import FitData
from luts.format.errors import InvalidArtifactError
from luts.format.operators import KINDS, MAX_SIZE, Operator, parse_operator
from luts.format.schema import KeyFeatures
from tests.support.errors import raises


def test_every_kind_is_read_back_from_its_key() -> None:
    generator = np.random.default_rng(0)
    for name, kind in {**KINDS, "portable.native_layer_norm": KINDS["gemm"]}.items():
        names = "in out stride indices taps run" if "." in name else f"{kind.sizes} {kind.omitted}"
        for dtype in ("fp32", "int8", "fp16"):
            sizes = {size: int(generator.integers(1, 20)) for size in names.split()}
            operator = Operator.build(name, sizes, dtype)
            assert parse_operator(operator.key) == operator
            assert parse_operator(operator.key).key == operator.key
            assert operator.features.kind == operator.key.partition("(")[0]


def test_sizes_in_another_order_and_ones_make_the_same_key() -> None:
    one = Operator.build(
        "conv", {"out": 16, "in": 3, "h": 8, "w": 8, "kw": 3, "kh": 3, "sh": 2, "sw": 2, "b": 1}
    )
    assert one.key == "conv(h=8,w=8,in=3,out=16,kh=3,kw=3,sh=2,sw=2)"
    assert Operator.build("gemm", {"m": 1, "k": 2, "n": 3, "groups": 4}).key == "gemm(m=1,k=2,n=3)"


@pytest.mark.parametrize(
    ("key", "macs", "depthwise_macs", "traffic_bytes", "params"),
    [
        ("gemm(m=196,k=64,n=128)", 196 * 64 * 128, 0, 4 * 196 * (64 + 128), 64 * 128),
        ("gemm.int8(m=196,k=64,n=128)", 196 * 64 * 128, 0, 196 * (64 + 128), 64 * 128),
        ("bmm(m=4,k=5,n=6,b=3)", 3 * 4 * 5 * 6, 0, 4 * 3 * (20 + 30 + 24), 0),
        ("depthwise(h=7,w=8,c=9,kh=3,kw=5,sh=2,sw=2)", 7560, 7560, 4 * 5 * 504, 9 * 15),
        ("grouped(h=2,w=2,in=3,out=5,groups=4,kh=3,kw=3)", 4 * 4 * 15 * 9, 0, 4 * 16 * (3 + 5), 4 * 15 * 9),
        ("conv_transpose(h=2,w=3,in=4,out=5,kh=2,kw=2,sh=2,sw=2)", 480, 0, 4 * (24 + 6 * 5 * 4), 80),
        ("add_broadcast(n=100,other=10,run=10)", 0, 0, 4 * 210, 0),
        ("portable.index.int64(in=10,out=3,indices=2)", 0, 0, 8 * 13, 0),
        ("portable.addmm(in=50,out=12,taps=5,run=3)", 12 * 5, 0, 4 * 62, 0),
        ("portable.max_pool2d_with_indices(in=50,out=12,taps=9,run=3)", 0, 0, 4 * 62, 0),
    ],
)
def test_features_by_hand(key: str, macs: int, depthwise_macs: int, traffic_bytes: int, params: int) -> None:
    features = KeyFeatures(
        kind=key.partition("(")[0],
        macs=macs,
        depthwise_macs=depthwise_macs,
        traffic_bytes=traffic_bytes,
        params=params,
    )
    assert parse_operator(key).features == features


BIG = MAX_SIZE


@pytest.mark.parametrize(
    "key",
    [
        "",
        "gemm",
        "gemm()",
        "gemm(m=1,k=2)",
        "gemm(m=1,k=2,n=3,)",
        "gemm(m=1,k=2,n=3,b=2)",
        "gemm(m=1,m=1,k=2,n=3)",
        "gemm(k=2,m=1,n=3)",
        "gemm(m=01,k=2,n=3)",
        "gemm(m=-1,k=2,n=3)",
        "gemm(m=1, k=2,n=3)",
        "gemm.fp32(m=1,k=2,n=3)",
        "gemm.int9(m=1,k=2,n=3)",
        "conv(h=1,w=1,in=1,out=1,kh=1)",
        "bmm(m=1,k=2,n=3,b=0)",
        f"sigmoid(n={BIG + 1})",
        f"gemm(m={BIG},k={BIG},n={BIG})",
        "nosuch(n=1)",
        "portable(in=1,out=2)",
        "portable.int8(in=1,out=2)",
        f"portable.{'x' * 50}(in=1,out=2)",
        "gemm(m=1,k=2,n=3)" * 20,
    ],
)
def test_a_text_that_is_not_the_key_of_an_operator_is_refused(key: str) -> None:
    with raises("invalid_operator_key", InvalidArtifactError):
        parse_operator(key)


def test_the_joint_fit_prices_operators_from_their_keys() -> None:
    """Sums over programs at 10 us a million MACs and 20 us a call: an operator in none of them is priced too."""
    keys = [f"gemm(m=196,k={k},n={n})" for k in (32, 64, 128) for n in (64, 96, 128, 192)]
    features = {key: parse_operator(key).features for key in keys}
    cost = {key: 0.02 + 0.01 * features[key].macs / 1e6 for key in keys}
    unseen, generator = "gemm(m=196,k=64,n=128)", np.random.default_rng(0)
    seen = [key for key in keys if key != unseen]
    rows = [tuple(generator.choice(seen, size=6).tolist()) for _ in range(40)]
    ms = np.array([sum(cost[key] for key in row) for row in rows])
    joint = fit_entries(FitData(ms, 1e-8 * np.eye(40), tuple(rows), np.zeros(40)), features)
    fitted = dict(zip(joint.keys, joint.ms.tolist(), strict=True))
    assert fitted[unseen] == pytest.approx(cost[unseen], rel=0.05)

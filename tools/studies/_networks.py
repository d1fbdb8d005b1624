"""The networks that are studied: FFN blocks and attention blocks in turn, at equal parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from luts.format.errors import UsageError
from search.blocks import BlockSpec, count, parse_key
from tools.studies import efficientvit_ablations  # noqa: F401 - registers evit.mha

HEADS = {"full": "evit.mha", "split": "evit.cga"}
"""What an attention head sees -> kind of block: all channels, or a split and the head before it."""

TOLERANCE = 0.02
"""Networks count as equally large up to this relative difference of their parameters."""


def attention(sees: str, channels: int, heads: int, qk_dim: int, resolution: int) -> BlockSpec:
    """Attention of all pixels of a map, 3x3 depthwise convolutions over queries; v has c / heads channels."""
    numbers = f"c={channels},heads={heads},qk={qk_dim},v={channels // heads},kernels={'3' * heads}"
    return parse_key(f"{HEADS[sees]}({numbers},window={resolution})@{resolution}")


def ffn(channels: int, hidden: int, resolution: int) -> BlockSpec:
    """Depthwise 3x3 and a feed-forward network of `hidden` channels; keys take ratios of four decimals."""
    ratio = math.ceil(hidden / channels * 1e4) / 1e4
    return parse_key(f"evit.ffn(c={channels},ratio={ratio:g})@{resolution}")


def equal_ffn(channels: int, resolution: int, params: int) -> BlockSpec:
    """The FFN block of about `params` parameters, as nearly as whole hidden channels allow.

    Raises:
        UsageError: so few are less than its depthwise convolution has.
    """
    one, two = (ffn(channels, hidden, resolution).params() for hidden in (1, 2))
    hidden = 1 + round((params - one) / (two - one))
    if hidden < 1:
        raise UsageError(
            f"no FFN of {channels} channels has as little as {params} parameters; take fewer channels"
        )
    return ffn(channels, hidden, resolution)


def spread(count_attention: int, count_all: int) -> tuple[bool, ...]:
    """Which of `count_all` places in a row get attention, so that they are as evenly apart as can be.

    Raises:
        ValueError: more attention than places.
    """
    if not 0 <= count_attention <= count_all:
        raise ValueError(f"{count_attention} blocks of attention in {count_all} places")
    taken = {(2 * i + 1) * count_all // (2 * count_attention) for i in range(count_attention)}
    return tuple(place in taken for place in range(count_all))


def classifier(
    sees: str, depth: int, channels: int, heads: int, qk_dim: int, classes: int
) -> tuple[BlockSpec, ...]:
    """For images of 32 px: a stem to 64 tokens, `depth` times FFN and attention, an FFN, a head."""
    stem = (
        parse_key(f"conv(in=3,out={channels // 2},k=3,s=2)@32"),
        parse_key(f"mbconv(in={channels // 2},out={channels},k=3,e=2,s=2)@16"),
    )
    side = stem[-1].out_resolution
    attend = attention(sees, channels, heads, qk_dim, side)
    full = attention("full", channels, heads, qk_dim, side)
    spare = depth * (full.params() - attend.params())
    feed = equal_ffn(channels, side, ffn(channels, 2 * channels, side).params() + spare // (depth + 1))
    head = parse_key(f"head.bnfc(in={channels},classes={classes})@{side}")
    return (*stem, *(feed, attend) * depth, feed, head)


def check_equal(networks: Sequence[Sequence[BlockSpec]]) -> None:
    """`UsageError` where parameters of the networks differ by more than the tolerance."""
    sizes = [count(blocks)[0] for blocks in networks]
    if max(sizes) > (1 + TOLERANCE) * min(sizes):
        raise UsageError(f"networks of {min(sizes):,} to {max(sizes):,} parameters are not equally large")

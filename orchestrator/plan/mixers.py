"""Token mixers at equal width and resolution: which models to measure, and what one block costs.

A block measured alone is a model of its own, with input and output. What one costs in a network is the
difference of two chains that differ only in the number of its copies, divided by the difference of copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from luts.estimate.latencies import LatencyEstimates, RemovalCost, removal_cost
from luts.format.errors import UsageError
from orchestrator.plan.plan import model_id
from search.blocks import BlockSpec, parse_key
from search.blocks.transformers import PruningLayer, VitLayer

SHORT_CHAIN, LONG_CHAIN = 1, 3
"""Copies of a block: one, so that the maps between blocks have the same layouts in both chains and the
additional copies are inside a network; three, because a difference of one copy would be twice as
uncertain.
"""

CLASSES = 10
"""Classes of the chains' classifier, which cancels out."""

HEAD_DIM = 32
"""Channels of an attention head if a mixer has a choice, as in Swin and networks like MobileViT."""

MERGED_SHARE = 0.08
"""Fraction of tokens that a layer merges: ToMe's 16 of DeiT's 197."""

KEPT_SHARE = 0.7
"""Fraction of tokens that EViT keeps where it prunes (its section 4.1)."""

MAX_WIDTH, MAX_RESOLUTION = 4096, 512


@dataclass(frozen=True)
class Setting:
    """What all blocks of one comparison share: channels, side of the map in pixels, and Swin's window."""

    width: int
    resolution: int
    window: int

    def __post_init__(self) -> None:
        """Check the bounds; raises UsageError."""
        if not 0 < self.width <= MAX_WIDTH or self.width % 4:
            raise UsageError(
                f"--width {self.width}: expected a multiple of 4 up to {MAX_WIDTH}", code="bad_width"
            )
        if not 0 < self.resolution <= MAX_RESOLUTION:
            raise UsageError(
                f"--resolution {self.resolution}: expected 1 to {MAX_RESOLUTION}", code="bad_resolution"
            )
        if not 0 < self.window <= MAX_RESOLUTION:
            raise UsageError(f"--window {self.window}: expected 1 to {MAX_RESOLUTION}", code="bad_window")

    @property
    def heads(self) -> int:
        """Number of heads of `HEAD_DIM` channels, or one of all channels."""
        return self.width // HEAD_DIM if self.width % HEAD_DIM == 0 else 1

    @property
    def tokens(self) -> int:
        """Number of tokens of a ViT's first layer: pixels and a class token."""
        return self.resolution**2 + 1

    @property
    def layer(self) -> str:
        """Common part of the keys of ViT layers."""
        return f"d={self.width},heads={self.heads},ratio=4,n={self.tokens}"


def kept_tokens(tokens: int) -> int:
    """Return how many tokens EViT keeps besides the class token and the fused one."""
    return max(1, math.ceil(KEPT_SHARE * (tokens - 1)))


MIXERS: Mapping[str, Callable[[Setting], str]] = {
    "mha": lambda s: f"mix.mha(c={s.width},heads={s.heads})@{s.resolution}",
    "window": lambda s: f"mix.window(c={s.width},heads={s.heads},w={s.window})@{s.resolution}",
    "sr": lambda s: f"mix.sr(c={s.width},heads={s.heads},s=2)@{s.resolution}",
    "separable": lambda s: f"mix.separable(c={s.width})@{s.resolution}",
    "additive": lambda s: f"mix.additive(c={s.width})@{s.resolution}",
    "linear": lambda s: f"mix.linear(c={s.width},heads={s.heads})@{s.resolution}",
    "cga": lambda s: (
        f"evit.cga(c={s.width},heads=4,qk=16,v={s.width // 4},kernels=5555,window={s.window})@{s.resolution}"
    ),
    "pool": lambda s: f"mix.pool(c={s.width},k=3)@{s.resolution}",
    "fourier": lambda s: f"mix.fourier(c={s.width})@{s.resolution}",
    "mlp": lambda s: f"mix.mlp(c={s.width},hidden={s.width // 2})@{s.resolution}",
    "vit": lambda s: f"vit.layer({s.layer})@{s.resolution}",
    "tome": lambda s: f"vit.tome({s.layer},r={max(1, round(MERGED_SHARE * s.tokens))})@{s.resolution}",
    "evit": lambda s: f"vit.evit({s.layer},k={kept_tokens(s.tokens)})@{s.resolution}",
}
"""Block key by name: token mixers, and layers of a ViT. Numbers that a paper leaves open are those of its
networks at 14 to 16 px: PVT's reduction is 2 there, PoolFormer's neighbourhood 3 x 3, Mixer's hidden width
d / 2; EfficientViT-M0 has four heads, 16 channels of queries in each and 5 x 5 convolutions over them.
"""


@dataclass(frozen=True)
class Mixer:
    """One block at one resolution, and the block keys of the three models that determine its latency."""

    name: str
    block: BlockSpec

    @property
    def tokens(self) -> int:
        """Number of pixels of the map."""
        return self.block.resolution**2

    @property
    def family(self) -> Literal["mixer", "layer"]:
        """What it can be compared with: a ViT's layer has an MLP, norms and residuals besides its attention."""
        return "layer" if isinstance(self.block, VitLayer) else "mixer"

    @property
    def alone(self) -> tuple[str, ...]:
        """The block as a network of its own."""
        return (self.block.key,)

    @property
    def short(self) -> tuple[str, ...]:
        """The chain with the fewest copies."""
        return self._chain(SHORT_CHAIN)

    @property
    def long(self) -> tuple[str, ...]:
        """The chain with the most copies."""
        return self._chain(LONG_CHAIN)

    def _chain(self, copies: int) -> tuple[str, ...]:
        width, side = self.block.in_channels, self.block.resolution
        stem, head = f"conv(in=3,out={width},k=3,s=1)@{side}", f"head.fc(in={width},classes={CLASSES})"
        if isinstance(self.block, VitLayer):
            layers = [layer.key for layer in _following(self.block, copies)]
            return (stem, f"vit.shell(d={width})@{side}", *layers, f"{head}@1")
        return (stem, *[self.block.key] * copies, f"{head}@{side}")

    @property
    def models(self) -> dict[str, tuple[str, ...]]:
        """All three by model id."""
        return {model_id(blocks): blocks for blocks in (self.short, self.long, self.alone)}


def _following(layer: VitLayer, copies: int) -> Iterator[VitLayer]:
    """Yield the layer and further ones of its kind, each with the tokens that the one before leaves."""
    for _ in range(copies):
        yield layer
        left = layer.tokens_out
        if isinstance(layer, PruningLayer):
            layer = replace(layer, tokens=left, kept=kept_tokens(left))
        else:
            layer = replace(layer, tokens=left)


def mixers(
    names: Sequence[str], width: int, resolutions: Sequence[int], window: int
) -> tuple[list[Mixer], list[str]]:
    """Return blocks by resolution, and a line for each that does not support one; UsageError if unknown."""
    foreign = [name for name in names if name not in MIXERS]
    if foreign:
        raise UsageError(
            f"unknown block {foreign[0][:40]!r}; known: {', '.join(MIXERS)}", code="unknown_block"
        )
    chosen, refused = [], []
    for resolution in resolutions:
        setting = Setting(width, resolution, window)
        for name in names:
            try:
                chosen.append(Mixer(name, parse_key(MIXERS[name](setting))))
            except UsageError as error:
                refused.append(f"{name} excluded at {resolution} px: {error}")
    return chosen, refused


def cost_of_copy(estimation: LatencyEstimates, mixer: Mixer) -> RemovalCost:
    """Return what one copy adds to a chain, in units of the reference's latency."""
    long, short = model_id(mixer.long), model_id(mixer.short)
    cost = removal_cost(estimation, long, short)
    copies = LONG_CHAIN - SHORT_CHAIN
    return RemovalCost(cost.ms / copies, cost.se / copies, cost.low / copies, cost.high / copies)

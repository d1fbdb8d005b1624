"""Plug-in with EfficientViT's ablations: one design choice removed at a time (Liu et al. 2023, table 6).

Each variant is a kind of block of its own, because each costs differently on a device: HardSwish instead of ReLU,
LayerNorm instead of BN, heads without the cascade, queries without depthwise convolution, FFN blocks without token
interaction, and heads that see all channels. Load it with `bench --import tools/studies/efficientvit_ablations.py`;
then `efficientvit-m4-no-cascade` and the other networks of `ABLATIONS` are known by name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import Activation, BlockSpec, OpList
from search.blocks.efficientvit import BnFcHead, CascadedGroupAttention, FfnBlock, OverlapStem, PatchMerging
from search.blocks.spec import register
from search.networks.efficientvit import CascadedAttention, feed_forward
from search.networks.layers import ChannelNorm
from search.networks.network import module_of
from search.spaces.efficientvit import PAPER_ARCHS, sandwich_slots, sandwiches
from search.spaces.published import Published, register_published
from search.spaces.stages import Value, register_head, register_stage

BASE_NETWORK = "efficientvit-m4"
"""The network whose design choices the paper's table 6 removes one at a time."""


class LayerNormOps(OpList):
    """Operations whose convolutions are followed by LayerNorm over each pixel's channels instead of BN."""

    def conv(self, *args: Any, norm: bool = True, **options: Any) -> Activation:
        """Convolve, then normalise over channels if `norm`."""
        y = super().conv(*args, norm=False, **options)
        return self.norm(y, axis=1) if norm else y


@register
class FullHeadAttention(CascadedGroupAttention):
    """Multi-head attention in EfficientViT's block (Liu et al. 2023, table 6, row "CGA -> MHSA").

    BN, depthwise convolutions over queries, relative biases, windows and residual are those of `evit.cga`.
    """

    kind: ClassVar[str] = "evit.mha"
    examples: ClassVar[tuple[str, ...]] = (
        "evit.mha(c=8,heads=1,qk=4,v=8,kernels=3,window=3)@3",
        "evit.mha(c=12,heads=2,qk=4,v=6,kernels=53,window=7)@7",
        "evit.mha(c=16,heads=2,qk=4,v=8,kernels=53,window=7)@7",
    )

    @property
    def splits(self) -> tuple[int, ...]:
        """Return the input channels of each head."""
        return (self.channels,) * self.heads

    @override
    def _head_input(
        self, ops: OpList, windows: Activation, split: int, outputs: list[Activation]
    ) -> Activation:
        """Return the windows: every head reads all channels."""
        return windows


@register
class GroupAttention(CascadedGroupAttention):
    """Group attention without the cascade: a head sees its split alone."""

    kind: ClassVar[str] = "evit.group"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.group(c=15,heads=2,qk=4,v=4,kernels=33,window=3)@3",
        "evit.group(c=32,heads=2,qk=8,v=16,kernels=75,window=7)@9",
    )

    @override
    def _head_input(
        self, ops: OpList, windows: Activation, split: int, outputs: list[Activation]
    ) -> Activation:
        """Append the head's split of the channels; the output of the head before it is not added."""
        return super()._head_input(ops, windows, split, [])


@register
class PlainQueryAttention(CascadedGroupAttention):
    """Cascaded group attention without the depthwise convolutions over its queries."""

    kind: ClassVar[str] = "evit.cga.plainq"
    elastic: ClassVar[bool] = False
    examples: ClassVar[tuple[str, ...]] = (
        "evit.cga.plainq(c=15,heads=2,qk=4,v=4,window=3)@3",
        "evit.cga.plainq(c=32,heads=2,qk=8,v=16,window=7)@9",
    )

    kernels: int = dataclasses.field(default=0, init=False)
    """No kernel, so none in the key."""

    def _check_kernels(self) -> None:
        """Accept any value: there is no kernel."""

    @property
    def kernel_sizes(self) -> tuple[int, ...]:
        """Return a kernel size of 0 for every head."""
        return (0,) * self.heads


@register
class FeedForward(FfnBlock):
    """FFN block without token interaction: two 1x1 convolutions with a residual."""

    kind: ClassVar[str] = "evit.feed"
    elastic: ClassVar[bool] = False
    branches: ClassVar[tuple[str, ...]] = ("feed.project",)
    examples: ClassVar[tuple[str, ...]] = ("evit.feed(c=16,ratio=3)@8",)

    @override
    def _interact(self, ops: OpList, x: Activation) -> Activation:
        """Return the input: there is no token interaction."""
        return x


_EXAMPLES: Mapping[type[BlockSpec], tuple[str, ...]] = {
    OverlapStem: ("(in=3,out=16)@40",),
    FfnBlock: ("(c=16,ratio=3)@8",),
    PatchMerging: ("(in=16,out=24)@8",),
    CascadedGroupAttention: (
        "(c=32,heads=2,qk=8,v=16,kernels=75,window=7)@9",
        "(c=16,heads=1,qk=8,v=20,kernels=3,window=7)@3",
    ),
    BnFcHead: ("(in=16,classes=10)@4",),
}
"""Block classes whose layers are exchanged, and keys of examples without the kind."""


def _variant(base: type[BlockSpec], name: str, kind: str, **attributes: object) -> type[BlockSpec]:
    """Register a kind of block with the fields and formulas of `base`."""
    examples = tuple(kind + example for example in _EXAMPLES[base])
    members = {"kind": kind, "elastic": False, "examples": examples, "__module__": __name__}
    return register(type(name, (base,), {**members, "__doc__": f"`{kind}`.", **attributes}))


HARDSWISH: dict[type[BlockSpec], type[BlockSpec]] = {
    base: _variant(base, f"HardSwish{base.__name__}", f"{base.kind}.hswish")
    for base in (OverlapStem, FfnBlock, PatchMerging, CascadedGroupAttention)
}
"""Kinds with HardSwish for ReLU; squeeze and excitation keeps its own activation."""

LAYER_NORM: dict[type[BlockSpec], type[BlockSpec]] = {
    base: _variant(base, f"LayerNorm{base.__name__}", f"{base.kind}.ln", op_list=LayerNormOps)
    for base in HARDSWISH
}
LAYER_NORM[BnFcHead] = _variant(BnFcHead, "LayerNormFcHead", "head.lnfc")
"""Kinds with LayerNorm over each pixel's channels for BN; the head normalises the means of the average pool."""

ABLATIONS: Mapping[str, Mapping[type[BlockSpec], type[BlockSpec]]] = {
    "no-cascade": {CascadedGroupAttention: GroupAttention},
    "layernorm": LAYER_NORM,
    "hardswish": HARDSWISH,
    "no-query-conv": {CascadedGroupAttention: PlainQueryAttention},
    "no-interaction": {FfnBlock: FeedForward},
    "mhsa": {CascadedGroupAttention: FullHeadAttention},
}
"""Block classes that each ablation replaces, and what it replaces them by."""


def ablated(blocks: Iterable[BlockSpec], ablation: str) -> tuple[BlockSpec, ...]:
    """Return the blocks with one design choice removed; blocks without that choice stay as they are."""
    changed = []
    for block in blocks:
        kind = ABLATIONS[ablation].get(type(block), type(block))
        names = [field.name for field in dataclasses.fields(kind) if field.init]
        changed.append(kind(**{name: getattr(block, name) for name in names}))
    return tuple(changed)


LAYOUTS: Mapping[str, tuple[int, int]] = {
    "no-sandwich": (0, 1),
    "no-ffns": (0, 0),
    "ffns-3": (3, 3),
    "ffns-4": (4, 4),
}
"""Feed-forward networks before and after each attention by name; the paper's networks have one on either side."""


def laid_out(blocks: Sequence[BlockSpec], before: int, after: int) -> tuple[BlockSpec, ...]:
    """Return the blocks with other numbers of feed-forward networks on either side of each attention."""
    made = list[BlockSpec]()
    for at, block in enumerate(blocks):
        if isinstance(block, CascadedGroupAttention):
            made[-1:] = [*[blocks[at - 1]] * before, block]
        elif at and isinstance(blocks[at - 1], CascadedGroupAttention):
            made += [block] * after
        else:
            made.append(block)
    return tuple(made)


def with_equal_widths(blocks: Iterable[BlockSpec]) -> tuple[BlockSpec, ...]:
    """Return the blocks with queries and keys as wide as values, that is without reallocated parameters."""
    return tuple(
        dataclasses.replace(block, qk_dim=block.v_dim) if isinstance(block, CascadedGroupAttention) else block
        for block in blocks
    )


class SeparateHeads(CascadedAttention):
    """Attention (B, C, H, W) to the same shape whose heads see their own split of the channels only."""

    def _attend(self, x: Tensor) -> Tensor:
        parts = torch.split(x, list(self.splits), 1)
        attended: Tensor = self.proj(
            torch.cat([head(part) for head, part in zip(self.heads, parts, strict=True)], 1)
        )
        return attended


class FullAttention(CascadedAttention):
    """Multi-head attention (B, C, H, W) to the same shape within windows; every head sees all channels."""

    def _attend(self, x: Tensor) -> Tensor:
        attended: Tensor = self.proj(torch.cat([head(x) for head in self.heads], 1))
        return attended


def _with_layers(
    spec: BlockSpec, base: type[BlockSpec], exchange: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Return the module of the block class `base` with each layer exchanged."""
    module = module_of.dispatch(base)(spec)
    for part in list(module.modules()):
        for name, child in part.named_children():
            setattr(part, name, exchange(child))
    return module


def _hardswish(layer: nn.Module) -> nn.Module:
    return nn.Hardswish() if isinstance(layer, nn.ReLU) else layer


def _layer_norm(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.BatchNorm2d):
        return ChannelNorm(layer.num_features)
    return nn.LayerNorm(layer.num_features) if isinstance(layer, nn.BatchNorm1d) else layer


for _kinds, _exchange in ((HARDSWISH, _hardswish), (LAYER_NORM, _layer_norm)):
    for _base, _kind in _kinds.items():
        module_of.register(_kind, functools.partial(_with_layers, base=_base, exchange=_exchange))
module_of.register(GroupAttention, SeparateHeads)
module_of.register(FullHeadAttention, FullAttention)
module_of.register(FeedForward, lambda spec: nn.Sequential(OrderedDict(feed=feed_forward(spec))))
register_head("lnfc", LAYER_NORM[BnFcHead])


@register_stage("efficientvit.ablated", slots=sandwich_slots)
def ablated_sandwiches(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return a stage of `efficientvit` with the ablation whose number `undone` is (0: none)."""
    blocks, number = sandwiches(v, channels, resolution), int(v["undone"])
    return list(ablated(blocks, list(ABLATIONS)[number - 1])) if number else blocks


_BASE = PAPER_ARCHS[BASE_NETWORK].blocks()
_NETWORKS = {ablation: ablated(_BASE, ablation) for ablation in ABLATIONS}
_NETWORKS |= {layout: laid_out(_BASE, *counts) for layout, counts in LAYOUTS.items()}
_NETWORKS["equal-qkv"] = with_equal_widths(_BASE)
for _name, _blocks in _NETWORKS.items():
    register_published(
        Published(f"{BASE_NETWORK}-{_name}", f"Liu et al. 2023, EfficientViT-M4, table 6: {_name}", _blocks)
    )

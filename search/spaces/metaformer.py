"""MetaFormer (Yu et al. 2022): spaces in which the token mixer of every stage is searched.

A stage embeds patches by a strided convolution with BN and runs `depth` blocks: norm, mixer and residual, then
norm, MLP and residual. Each mixer has weights of its own in a supernet; embedding and MLPs are shared by all
mixers of a place.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from luts.format.errors import UsageError
from search.blocks import BlockSpec
from search.blocks.metaformer import MIXERS, ChannelMlp, MixerSetting, MixerShell
from search.blocks.mixers import TokenMixer
from search.blocks.mobilenet import LinearConv
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_stage


def metaformer_blocks(mixer: TokenMixer, mlp_ratio: float, depth: int) -> list[BlockSpec]:
    """Return `depth` MetaFormer blocks with this mixer, each a shell, the mixer inside and an MLP."""
    side, width = mixer.resolution, mixer.channels
    return [MixerShell(side, width), mixer, ChannelMlp(side, width, mlp_ratio)] * depth


def metaformer_slots(mixer: str, depth: int) -> list[str]:
    """Name the slots of `metaformer_blocks`: a mixer has its own at every place, the MLPs there are shared."""
    return [role for place in range(depth) for role in (f"{place}{mixer}", f"{place}feed")]


def _slots(mixers: Sequence[str], v: dict[str, Value]) -> list[str]:
    return ["embed", *metaformer_slots(mixers[int(v["mixer"])], int(v["depth"]))]


def _blocks(mixers: Sequence[str], v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    width, head_dim = int(v["width"]), int(v["head_dim"])
    if width % head_dim:
        raise UsageError(
            f"heads of {head_dim} channels do not divide {width} channels; change head_dim or the widths",
            code="invalid_block_parameter",
        )
    embed = LinearConv(resolution, channels, width, int(v["kernel"]), int(v["stride"]))
    setting = MixerSetting(
        embed.out_resolution, width, width // head_dim, int(v["window"]), int(v["reduction"])
    )
    mixer = MIXERS[mixers[int(v["mixer"])]](setting)
    return [embed, *metaformer_blocks(mixer, float(v["mlp_ratio"]), int(v["depth"]))]


def register_metaformer(kind: str, mixers: Sequence[str]) -> None:
    """Register a kind of stage whose choice `mixer` is between these names of `MIXERS`, counted from 0."""
    register_stage(kind, functools.partial(_slots, mixers))(functools.partial(_blocks, mixers))


FINE = ("pool", "window", "sr", "separable", "additive", "linear")
"""Mixers of maps with thousands of pixels, where plain attention's scores would take tens of megabytes."""

COARSE = (*FINE, "mha", "fourier", "mlp")
"""Mixers of maps of up to 16 x 16 px."""

register_metaformer("metaformer-fine", FINE)
register_metaformer("metaformer-coarse", COARSE)


def _stage(
    index: int,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    *,
    fine: bool = False,
    stride: int = 2,
    reduction: int = 2,
    window: int = 7,
    ratios: tuple[Value, ...] = (2, 3),
) -> Stage:
    mixers = FINE if fine else COARSE
    fixed = (
        ("stride", stride),
        ("kernel", 2 * stride - 1),
        ("head_dim", 16),
        ("window", window),
        ("reduction", reduction),
    )
    choices = (
        ("width", widths),
        ("depth", depths),
        ("mlp_ratio", ratios),
        ("mixer", tuple(range(len(mixers)))),
    )
    kind = "metaformer-fine" if fine else "metaformer-coarse"
    return Stage(f"stage{index}", kind, fixed, choices, (("mixer", mixers),))


CIFAR = Space(
    name="metaformer-cifar",
    stages=(
        _stage(1, (16, 32), (1, 2), window=4, ratios=(1.5, 2)),
        _stage(2, (32, 48, 64), (1, 2, 3), window=4, ratios=(1.5, 2)),
    ),
    stage_counts=(2,),
    resolutions=(32,),
    heads=("bnfc",),
    default_resolution=32,
    default_classes=10,
)
"""Maps of 16 x 16 and 8 x 8 px."""

XXS = Space(
    name="metaformer-xxs",
    stages=(
        _stage(1, (32, 48), (1, 2), fine=True, stride=4, reduction=8),
        _stage(2, (48, 64), (1, 2), fine=True, reduction=4),
        _stage(3, (64, 80, 96), (2, 3, 4)),
        _stage(4, (128, 160), (1, 2), reduction=1),
    ),
    stage_counts=(4,),
    resolutions=(224,),
    heads=("bnfc",),
    default_resolution=224,
    default_classes=1000,
)
"""Strides and kernels of PoolFormer's embeddings and the reductions of PVT: maps of 56, 28, 14 and 7 px."""

SPACES = (CIFAR, XXS)
PAPER_ARCHS: dict[str, Arch] = {}

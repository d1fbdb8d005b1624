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


def metaformer_blocks(
    mixer: TokenMixer, mlp_ratio: float, depth: int, partner: TokenMixer | None = None
) -> list[BlockSpec]:
    """Return `depth` MetaFormer blocks: a shell, a mixer inside (every second is `partner`) and an MLP."""
    shell = MixerShell(mixer.resolution, mixer.channels)
    mlp = ChannelMlp(mixer.resolution, mixer.channels, mlp_ratio)
    return [block for place in range(depth) for block in (shell, (mixer, partner or mixer)[place % 2], mlp)]


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
        embed.out_resolution,
        width,
        width // head_dim,
        int(v["window"]),
        int(v["reduction"]),
        int(v.get("base", 0)),
    )
    name = mixers[int(v["mixer"])]
    # as in Swin and MaxViT: shifted windows or a grid alone would never mix all pixels
    partner = "window" if name in ("shifted", "grid") else name
    mixer, second = (MIXERS[each](setting) for each in (name, partner))
    return [embed, *metaformer_blocks(mixer, float(v["mlp_ratio"]), int(v["depth"]), second)]


def register_metaformer(kind: str, mixers: Sequence[str]) -> None:
    """Register a kind of stage whose choice `mixer` is between these names of `MIXERS`, counted from 0."""
    register_stage(kind, functools.partial(_slots, mixers))(functools.partial(_blocks, mixers))


_LOCAL = ("pool", "shift", "outlook", "neighbour", "separable", "additive", "linear", "performer")
_GLOBAL = ("mha", "fourier", "mlp", "gmlp")
FINE = (*_LOCAL, "window", "shifted", "grid", "cross", "sr")
"""Mixers of maps with thousands of pixels, where plain attention's scores would take tens of megabytes."""

_KINDS = {
    "metaformer-fine": (*FINE, "shunted", "axial", "focal"),
    "metaformer-coarse": (*FINE, *_GLOBAL),
    "metaformer-middle": (*FINE, "shunted", "axial", "focal", *_GLOBAL, "linformer"),
    "metaformer-last": (*_LOCAL, "axial", *_GLOBAL, "linformer"),  # the map is one window
}

for _kind, _mixers in _KINDS.items():
    register_metaformer(_kind, _mixers)


def _stage(
    index: int,
    kind: str,
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    ratios: tuple[Value, ...] = (2, 3),
    **fixed: int,
) -> Stage:
    """Return a stage of stride 2 and windows of 7 px with keys reduced by 2, where `fixed` does not differ."""
    constants = {"stride": 2, "kernel": 3, "head_dim": 16, "window": 7, "reduction": 2} | fixed
    mixers = _KINDS[f"metaformer-{kind}"]
    choices = {"width": widths, "depth": depths, "mlp_ratio": ratios, "mixer": tuple(range(len(mixers)))}
    labels = (("mixer", mixers),)
    return Stage(
        f"stage{index}", f"metaformer-{kind}", tuple(constants.items()), tuple(choices.items()), labels
    )


def _space(name: str, resolution: int, classes: int, *stages: Stage) -> Space:
    return Space(name, stages, (len(stages),), (resolution,), ("bnfc",), resolution, classes)


CIFAR = _space(
    "metaformer-cifar",
    32,
    10,
    _stage(1, "coarse", (16, 32), (1, 2), (1.5, 2), window=4),
    _stage(2, "coarse", (32, 48, 64), (1, 2), (1.5, 2), window=4),
)
"""Maps of 16 x 16 and 8 x 8 px."""

XXS = _space(
    "metaformer-xxs",
    224,
    1000,
    _stage(1, "fine", (32, 48), (1, 2), stride=4, kernel=7, reduction=8),
    _stage(2, "fine", (48, 64), (1, 2), reduction=4),
    _stage(3, "middle", (64, 80, 96), (2, 3, 4)),
    _stage(4, "last", (128, 160), (1, 2)),
)
"""Strides and kernels of PoolFormer's embeddings and reductions of PVT: maps of 56, 28, 14 and 7 px."""

SPACES = (CIFAR, XXS)
PAPER_ARCHS: dict[str, Arch] = {}

"""AutoViT's spaces (Table 1) and searched networks (Table 3), and three small spaces of the same family.

What the paper prints and what is reconstructed from its figures: docs/autovit.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.blocks import BlockSpec, Conv, FcHead, MBConv, MbPoolHead, MobileViTLayer, MobileViTShell
from search.blocks.mobilevit import ResizingShell
from search.spaces.space import Arch, Space
from search.spaces.stages import Stage, Value, register_head, register_stage

_KERNELS = (3, 5)
_RATIOS = (1.5, 2.0)
_STRIDES = (2, 2, 2, 1, 1)
_RESOLUTIONS = (192, 224, 256, 288)


@register_stage("conv")
def convolution(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return one convolution, the stem."""
    return [Conv(resolution, channels, int(v["width"]), int(v["kernel"]), int(v["stride"]))]


@register_stage("mbconv")
def mbconvs(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return `depth` inverted residuals; only the first changes width and resolution."""
    width, kernel, expansion = int(v["width"]), int(v["kernel"]), int(v["expansion"])
    first: BlockSpec = MBConv(resolution, channels, width, kernel, expansion, int(v["stride"]))
    rest: BlockSpec = MBConv(first.out_resolution, width, width, kernel, expansion, 1)
    return [first] + [rest] * (int(v["depth"]) - 1)


@register_stage("mvit")
def autovit_transformers(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return AutoViT's transformer stage; its dimension follows from the width."""
    dim = int(v["dim_scale"] * int(v["width"]) + v["dim_offset"])
    return transformers(v, channels, resolution, dim, int(v["head_dim"]))


def transformers(
    v: dict[str, Value], channels: int, resolution: int, dim: int, head_dim: int, *, resizes: bool = False
) -> list[BlockSpec]:
    """Return an MBConv that changes width and resolution, and a MobileViT block with `depth` layers.

    A map that is not whole patches is padded, as in AutoViT, or `resizes`, as in MobileViT.
    """
    width, patch = int(v["width"]), int(v["patch"])
    down = MBConv(resolution, channels, width, int(v["kernel"]), int(v["expansion"]), int(v["stride"]))
    side = down.out_resolution
    layer = MobileViTLayer(side, dim, int(v["heads"]), head_dim, float(v["mlp_ratio"]), patch)
    shell = ResizingShell if resizes and side % patch else MobileViTShell
    return [down, shell(side, width, dim, patch)] + [layer] * int(v["depth"])


register_head("fc", FcHead)
register_head("mbpool", MbPoolHead)


def _stem(widths: tuple[int, ...]) -> Stage:
    return Stage("stem", "conv", (("stride", 2), ("kernel", 3)), (("width", widths),))


def _mbconv(
    index: int, stride: int, widths: tuple[int, ...], depths: tuple[int, ...], kernels: tuple[int, ...]
) -> Stage:
    choices = (("width", widths), ("depth", depths), ("kernel", kernels))
    return Stage(f"mbconv{index}", "mbconv", (("stride", stride), ("expansion", 1)), choices)


@dataclass(frozen=True)
class _Transformers:
    """What the transformer stages of a space have in common.

    Attributes:
        heads: Candidate numbers of heads.
        expansion: Expansion of the stage's MBConv.
        dim_scale, dim_offset: The dimension of C channels is dim_scale C + dim_offset.
        head_dim: Channels of a head.
        depths: Candidate numbers of layers.
        kernels: Candidate kernels of the stage's MBConv.
    """

    heads: tuple[int, ...]
    expansion: int
    dim_scale: float
    dim_offset: int
    head_dim: int = 32
    depths: tuple[int, ...] = (2, 3, 4, 5)
    kernels: tuple[int, ...] = _KERNELS

    def stage(self, index: int, stride: int, widths: tuple[int, ...]) -> Stage:
        fixed = (
            ("stride", stride),
            ("expansion", self.expansion),
            ("dim_scale", self.dim_scale),
            ("dim_offset", self.dim_offset),
            ("head_dim", self.head_dim),
            ("patch", 2),
        )
        choices = (
            ("width", widths),
            ("depth", self.depths),
            ("heads", self.heads),
            ("mlp_ratio", _RATIOS),
            ("kernel", self.kernels),
        )
        return Stage(f"transformer{index}", "mvit", fixed, choices)


_SMALL = _Transformers((2, 3), 2, 1, 0, head_dim=16, depths=(1, 2), kernels=(3,))


def _autovit(
    name: str,
    mbconv_widths: tuple[tuple[int, ...], ...],
    transformer_widths: tuple[tuple[int, ...], ...],
    transformers: _Transformers,
) -> Space:
    first, second, third = mbconv_widths
    mbconvs = (
        _mbconv(1, 1, first, (1, 2), _KERNELS),
        _mbconv(2, 2, second, (2, 3), _KERNELS),
        _mbconv(3, 1, third, (2, 3), _KERNELS),
    )
    stages = tuple(
        transformers.stage(i + 1, _STRIDES[i], widths) for i, widths in enumerate(transformer_widths)
    )
    before = 1 + len(mbconvs)
    return Space(
        name=name,
        stages=(_stem((16, 24)), *mbconvs, *stages),
        stage_counts=tuple(before + n for n in range(3, len(stages) + 1)),
        resolutions=_RESOLUTIONS,
        heads=("fc", "mbpool"),
        default_resolution=256,
        default_classes=1000,
    )


def _small(name: str, resolution: int, *stages: Stage) -> Space:
    """Return a space for small images of ten classes; the last stage is optional."""
    return Space(name, stages, (3, 4), (resolution,), ("fc",), resolution, 10)


XXS = _autovit(
    "autovit-xxs",
    ((16, 24), (24, 32), (32, 48)),
    ((48, 64), (64, 80), (80, 96), (96, 112), (112,)),
    _Transformers((2, 3, 4), 2, 1, 0),
)
XS = _autovit(
    "autovit-xs",
    ((24, 32), (32, 48), (48, 64)),
    ((64, 80), (80, 96), (96, 112), (112, 128)),
    _Transformers((4, 5, 6), 4, 1.5, 0),
)
S = _autovit(
    "autovit-s",
    ((24, 32), (32, 48), (48, 64)),
    ((64, 96), (96, 128), (128, 160), (160, 192)),
    _Transformers((7, 8, 9), 4, 1.5, -16),
)
NANO = _small(
    "autovit-nano",
    64,
    _stem((8, 16)),
    _mbconv(1, 2, (16, 24), (1, 2), (3,)),
    _SMALL.stage(1, 2, (32, 48)),
    _SMALL.stage(2, 2, (48, 64)),
)

CIFAR = _small(
    "autovit-cifar",
    32,
    _stem((8, 16)),
    _mbconv(1, 2, (16, 24, 32), (1, 2), (3,)),
    _SMALL.stage(1, 2, (32, 48, 64)),
    _SMALL.stage(2, 1, (48, 64, 80)),
)

_EARLY = replace(_SMALL, heads=(1, 2), depths=(1, 2, 3), kernels=_KERNELS)
CIFAR16 = _small(
    "autovit-cifar16",
    32,
    _stem((8, 16)),
    _mbconv(1, 1, (8, 16), (1, 2, 3), _KERNELS),
    _EARLY.stage(1, 1, (8, 16, 24)),
    replace(_EARLY, depths=(1, 2, 3, 4)).stage(2, 2, (16, 24, 32, 48)),
)
"""Transformer stages on maps of 16 x 16 and 8 x 8, where those of CIFAR have 4 x 4."""

RULES = ((2, 1.0, 0), (4, 1.5, -16), (4, 1.5, 0))
"""Expansion of the first MBConv, and a and b of the dimension a C + b of C channels: as in XXS, in S and in
XS.

The last holds the weights of the others."""

_TABLE1_STAGES = 8
"""Conv, three MBConv and four transformer stages."""


@register_stage("mvit-joint")
def transformers_by_rule(v: dict[str, Value], channels: int, resolution: int) -> list[BlockSpec]:
    """Return a transformer stage with the expansion and dimension rule of one of the three spaces."""
    expansion, scale, offset = RULES[int(v["rule"])]
    dim = int(scale * int(v["width"]) + offset)
    return transformers(v | {"expansion": expansion}, channels, resolution, dim, int(v["head_dim"]))


def _as_printed(space: Space) -> Space:
    """Return the space as printed in Table 1: no kernels, at most four transformer stages, MBPool, 256 px."""
    stages = tuple(
        replace(stage, choices=tuple((name, (3,) if name == "kernel" else v) for name, v in stage.choices))
        for stage in space.stages[:_TABLE1_STAGES]
    )
    return replace(
        space,
        name=f"{space.name}-table1",
        stages=stages,
        stage_counts=(_TABLE1_STAGES - 1, _TABLE1_STAGES),
        resolutions=(256,),
        heads=("mbpool",),
    )


def _joint(name: str, spaces: tuple[Space, ...]) -> Space:
    """Return a space with every value of the given spaces; transformer stages also choose their rule."""
    first = spaces[0]
    stages = []
    for together in zip(*(space.stages for space in spaces), strict=True):
        choices = [
            (name, tuple(sorted({value for stage in together for value in dict(stage.choices)[name]})))
            for name in together[0].names
        ]
        kind, fixed = together[0].kind, together[0].fixed
        if kind == "mvit":
            kind = "mvit-joint"
            fixed = tuple(item for item in fixed if item[0] in ("stride", "head_dim", "patch"))
            choices.append(("rule", tuple(range(len(RULES)))))
        stages.append(Stage(together[0].name, kind, fixed, tuple(choices)))
    return replace(first, name=name, stages=tuple(stages))


TABLE1_SPACES = tuple(map(_as_printed, (XXS, XS, S)))

SPACES = (NANO, CIFAR, CIFAR16, XXS, XS, S, *TABLE1_SPACES, _joint("autovit-joint", TABLE1_SPACES))


def _table3(
    space: Space,
    stem: int,
    mbconvs: tuple[tuple[int, int], ...],
    widths: tuple[int, ...],
    heads: tuple[int, ...],
    ratios: tuple[float, ...],
) -> Arch:
    """Return a network of Table 3: kernel 3, two layers a transformer block, classifier `fc`, 256 px."""
    rows: list[tuple[Value, ...]] = [(stem,)]
    rows += [(width, depth, 3) for width, depth in mbconvs]
    rows += [(w, 2, h, r, 3) for w, h, r in zip(widths, heads, ratios, strict=True)]
    return Arch(space, 256, "fc", 1000, tuple(rows))


PAPER_ARCHS = {
    "autovit-xxs-paper": _table3(
        XXS, 16, ((16, 1), (24, 2), (32, 2)), (48, 64, 80, 96, 112), (3, 3, 3, 4, 2), (2, 1.5, 2, 2, 2)
    ),
    "autovit-xs-paper": _table3(
        XS, 24, ((32, 2), (48, 3), (64, 3)), (64, 80, 96, 112), (4, 6, 4, 4), (1.5, 2, 2, 2)
    ),
    "autovit-s-paper": _table3(
        S, 16, ((24, 1), (32, 2), (48, 2)), (96, 128, 160, 192), (9, 8, 8, 9), (1.5, 2, 2, 1.5)
    ),
}

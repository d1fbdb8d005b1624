"""Published networks that are not members of a search space, by name.

The package has those that AutoViT's Table 2 compares with, at the 224 px of their own papers (MobileViTv3: 256 px).
A plug-in adds others with `register_published`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from luts.format.registry import Registry
from search.blocks import BlockSpec, Conv, ConvHead, MBConv, MobileViTLayer
from search.blocks.cvt import CvtLayer, CvtTokenLayer, CvtTokens
from search.blocks.efficient_cnns import Eesp, EspHead, EspTrunk, ShuffleHead, ShuffleStem, ShuffleUnit
from search.blocks.embeddings import OverlapEmbed
from search.blocks.mobilevit import MobileViTv3Shell
from search.blocks.sequence import BlockSequence
from search.blocks.transformers import (
    CeitEncoder,
    CeitLayer,
    CeitStem,
    LocalVitLayer,
    T2tEmbed,
    T2tLayer,
    T2tPerformer,
    TokenEmbed,
    TokenHead,
)
from search.spaces.plugins import load_installed

RESOLUTION = 224
CLASSES = 1000


@dataclass(frozen=True)
class Published(BlockSequence):
    """One network of a paper.

    Attributes:
        name: Its name in commands.
        source: Paper and table that describe it.
        chain: Its blocks in order of execution.
    """

    name: str
    source: str
    chain: tuple[BlockSpec, ...]

    @property
    def resolution(self) -> int:
        """Side of the input image in pixels."""
        return self.chain[0].resolution

    def blocks(self) -> tuple[BlockSpec, ...]:
        """Return the blocks of the network in order of execution."""
        return self.chain


def _shufflenetv2(widths: tuple[int, int, int, int, int]) -> Iterator[BlockSpec]:
    """Yield table 5 of Ma et al. 2018: 4, 8 and 4 units; widths of stem, three stages and Conv5."""
    *widths_before, last = widths
    stem = ShuffleStem(RESOLUTION, 3, widths_before[0])
    yield stem
    width, resolution = widths_before[0], stem.out_resolution
    for out, units in zip(widths_before[1:], (4, 8, 4), strict=True):
        for index in range(units):
            unit = ShuffleUnit(resolution, width, out, 1 if index else 2)
            yield unit
            width, resolution = out, unit.out_resolution
    yield ShuffleHead(resolution, width, CLASSES, last)


def _espnetv2(stem: int, width: int, last: int) -> Iterator[BlockSpec]:
    """Yield table 1 of Mehta et al. 2019: 3, 7 and 3 EESP units, dilations up to 4, 3 and 2."""
    trunk = EspTrunk(RESOLUTION, 3, stem, width)
    yield trunk
    levels = zip(trunk.widths[1:], trunk.sides[2:], (3, 7, 3), (4, 3, 2), strict=True)
    for channels, side, units, largest_dilation in levels:
        for _ in range(units):
            yield Eesp(side, channels, largest_dilation)
    yield EspHead(trunk.out_resolution, trunk.out_channels, CLASSES, last)


def _t2t_vit(dim: int, heads: int, depth: int, ratio: float) -> Iterator[BlockSpec]:
    """Yield table 1 of Yuan et al. 2021, with Performers of 64 channels in the tokens-to-token module."""
    first = T2tPerformer(RESOLUTION, 3, 64, 7, 4)
    second = T2tPerformer(first.out_resolution, 64, 64, 3, 2)
    embed = T2tEmbed(second.out_resolution, 64, dim, 3, 2)
    yield from (first, second, embed)
    for _ in range(depth):
        yield T2tLayer(embed.out_resolution, dim, heads, ratio)
    yield TokenHead(embed.out_resolution, dim, CLASSES)


def _localvit(dim: int, heads: int, depth: int, reduction: int) -> Iterator[BlockSpec]:
    """Yield DeiT (Touvron et al. 2021) with the feed-forward networks of LocalViT, expansion 4."""
    embed = TokenEmbed(RESOLUTION, 3, dim, 16, 16)
    yield embed
    for _ in range(depth):
        yield LocalVitLayer(embed.out_resolution, dim, heads, 4, reduction)
    yield TokenHead(embed.out_resolution, dim, CLASSES)


def _ceit(stem_width: int, dim: int, heads: int, depth: int) -> Iterator[BlockSpec]:
    """Yield table 1 of Yuan et al. 2021: a pooled stem and patches of 4 x 4 on its map, expansion 4."""
    stem = CeitStem(RESOLUTION, 3, stem_width)
    embed = TokenEmbed(stem.out_resolution, stem_width, dim, 4, 4)
    yield from (stem, embed, CeitEncoder(embed.out_resolution, dim, heads, 4, depth, CLASSES))
    for _ in range(depth):
        yield CeitLayer(embed.out_resolution, dim, heads, 4)


def _cvt(
    dims: tuple[int, int, int], heads: tuple[int, int, int], depths: tuple[int, int, int]
) -> Iterator[BlockSpec]:
    """Yield table 2 of Wu et al. 2021; a class token joins in the last stage."""
    width, side = 3, RESOLUTION
    for stage, (dim, count, depth) in enumerate(zip(dims, heads, depths, strict=True)):
        embed = OverlapEmbed(side, width, dim, 3 if stage else 7, 2 if stage else 4)
        width, side = dim, embed.out_resolution
        last = stage == len(dims) - 1
        yield from (embed, CvtTokens(side, dim)) if last else (embed,)
        yield from [(CvtTokenLayer if last else CvtLayer)(side, dim, count, 4)] * depth
    yield TokenHead(side, width, CLASSES)


def _mobilevitv3(
    before: tuple[int, int, int], widths: tuple[int, int, int], dims: tuple[int, int, int], expansion: int
) -> Iterator[BlockSpec]:
    """Yield MobileViT with v3's blocks: widths of stem and two stages, then of stages with 2, 4 and 3 layers."""
    stem = Conv(256, 3, before[0], 3, 2)
    yield stem
    width, side = before[0], stem.out_resolution
    for out, stride in [(before[1], 1), (before[2], 2), (before[2], 1), (before[2], 1)]:
        block = MBConv(side, width, out, 3, expansion, stride)
        yield block
        width, side = out, block.out_resolution
    for out, dim, depth in zip(widths, dims, (2, 4, 3), strict=True):
        down = MBConv(side, width, out, 3, expansion, 2)
        width, side = out, down.out_resolution
        yield from (down, MobileViTv3Shell(side, width, dim, 2))
        yield from [MobileViTLayer(side, dim, 4, dim // 4, 2, 2)] * depth
    yield ConvHead(side, width, CLASSES, 4 * width)


_PUBLISHED = (
    Published(
        "mobilevitv3-xxs",
        "Wadekar & Chaurasia 2022, MobileViTv3-XXS, as in the authors' code",
        tuple(_mobilevitv3((16, 16, 24), (64, 80, 128), (64, 80, 96), 2)),
    ),
    Published(
        "shufflenetv2-1.0",
        "Ma et al. 2018, ShuffleNet V2, table 5, 1x",
        tuple(_shufflenetv2((24, 116, 232, 464, 1024))),
    ),
    Published("espnetv2", "Mehta et al. 2019, ESPNetv2, 1.5x", tuple(_espnetv2(32, 96, 1024))),
    Published("t2t-vit-7", "Yuan et al. 2021, T2T-ViT-7 (T2T-T), table 1", tuple(_t2t_vit(256, 4, 7, 2))),
    Published(
        "localvit-t",
        "Li et al. 2021, LocalViT-T (DeiT-T, 4 heads, SE reduced 192-fold)",
        tuple(_localvit(192, 4, 12, 192)),
    ),
    Published(
        "cvt-13", "Wu et al. 2021, CvT-13, table 2", tuple(_cvt((64, 192, 384), (1, 3, 6), (1, 2, 10)))
    ),
    Published("ceit-t", "Yuan et al. 2021, CeiT-T, as in the authors' code", tuple(_ceit(64, 192, 3, 12))),
)
PUBLISHED: Registry[Published] = Registry("network", load_installed)
PUBLISHED.items |= {network.name: network for network in _PUBLISHED}


def register_published(network: Published) -> None:
    """Register a network under its name.

    Raises:
        UsageError: another network has this name.
    """
    if PUBLISHED.items.get(network.name) != network:
        PUBLISHED.add(network.name, network)


def list_published() -> dict[str, Published]:
    """Return all published networks by name, those of plug-ins included."""
    return {name: PUBLISHED.get(name) for name in PUBLISHED.names()}

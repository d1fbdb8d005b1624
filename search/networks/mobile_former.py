"""Mobile-Former (Chen et al. 2022), registered with timm: a MobileNet beside a transformer of a few tokens.

Built as in the authors' code (github.com/AAboys/MobileFormer, `mobile_former.py` and `dna_blocks.py` at commit
b19a2a70969e). Shapes: map (B, C, H, W), tokens (B, T, D).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from typing_extensions import override

from search.networks.layers import ConvBnAct, Residual, attend, split_heads, to_map, to_tokens

HEADS, TOKEN_HEADS = 2, 4
"""Heads of attention between map and tokens, and among tokens."""

SECOND_EXPANSION = 4
"""Of the second depthwise convolution of a block of stride 2."""


class DynamicRelu(nn.Module):
    """max(a x, b x); a in 0 to 2 and b in -1 to 1 of each channel come from the first token (Chen et al. 2020)."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.slopes = nn.Sequential(
            nn.Linear(dim, dim // 4), nn.ReLU(), nn.Linear(dim // 4, 2 * channels), nn.Hardsigmoid()
        )

    @override
    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        first, second = self.slopes(tokens[:, 0])[:, :, None, None].chunk(2, 1)
        return torch.maximum(x * (2.0 * first), x * (2.0 * second - 1.0))


class MobileToFormer(nn.Module):
    """Tokens that attend to the pixels of a map, which are keys and values as they are, with a gate."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.query = nn.Linear(dim, channels)
        self.gate = nn.Sequential(nn.Linear(dim, channels), nn.Hardsigmoid())
        self.project = nn.Linear(channels, dim)
        self.norm = nn.LayerNorm(dim)

    @override
    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        (queries,) = split_heads(self.query(tokens), 1, HEADS)
        (pixels,) = split_heads(to_tokens(x), 1, HEADS)
        read = attend(queries, pixels, pixels, HEADS) * (2.0 * self.gate(tokens))
        return self.norm(tokens + self.project(read))


class Former(nn.Module):
    """A transformer layer of the tokens, normalised after each half; tokens are keys and values as they are."""

    def __init__(self, dim: int):
        super().__init__()
        self.query, self.project = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        (queries,) = split_heads(self.query(tokens), 1, TOKEN_HEADS)
        (keys,) = split_heads(tokens, 1, TOKEN_HEADS)
        tokens = self.norm(tokens + self.project(attend(queries, keys, keys, TOKEN_HEADS)))
        return self.mlp_norm(tokens + self.mlp(tokens))


class FormerToMobile(nn.Module):
    """A map whose pixels attend to the tokens; pixels are queries as they are."""

    def __init__(self, channels: int, dim: int):
        super().__init__()
        self.key, self.value = nn.Linear(dim, channels), nn.Linear(dim, channels)

    @override
    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        parts = to_tokens(x), self.key(tokens), self.value(tokens)
        queries, keys, values = (split_heads(part, 1, HEADS)[0] for part in parts)
        return x + to_map(attend(queries, keys, values, HEADS), x.shape[2])


class _Block(nn.Module, ABC):
    """Tokens read the map, are mixed, set the activations of the convolutions, and are read by the map."""

    def __init__(self, inputs: int, outputs: int, dim: int):
        super().__init__()
        self.to_former = MobileToFormer(inputs, dim)
        self.former = Former(dim)
        self.to_mobile = FormerToMobile(outputs, dim)

    @abstractmethod
    def convolved(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Return the map after the block's convolutions."""

    @override
    def forward(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.former(self.to_former(x, tokens))
        return self.to_mobile(self.convolved(x, tokens), tokens), tokens


class Bottleneck(_Block):
    """The block of stride 1: an inverted bottleneck."""

    def __init__(self, inputs: int, outputs: int, expansion: int, dim: int):
        super().__init__(inputs, outputs, dim)
        hidden = inputs * expansion
        self.expand = ConvBnAct(inputs, hidden, act=None)
        self.depthwise = ConvBnAct(hidden, hidden, 3, groups=hidden, act=None)
        self.reduce = ConvBnAct(hidden, outputs, act=None)
        self.acts = nn.ModuleList(DynamicRelu(hidden, dim) for _ in range(2))
        self.residual = inputs == outputs

    @override
    def convolved(self, x: Tensor, tokens: Tensor) -> Tensor:
        expanded = self.acts[0](self.expand(x), tokens)
        y: Tensor = self.reduce(self.acts[1](self.depthwise(expanded), tokens))
        return x + y if self.residual else y


class Downsampling(_Block):
    """The block of stride 2: two depthwise convolutions that widen, each before a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, expansion: int, dim: int):
        super().__init__(inputs, outputs, dim)
        hidden, widths = (inputs * expansion, outputs * SECOND_EXPANSION), (inputs, outputs)
        self.widen = nn.ModuleList(
            ConvBnAct(width, each, 3, stride, groups=width, act=None)
            for width, each, stride in zip(widths, hidden, (2, 1), strict=True)
        )
        self.acts = nn.ModuleList(DynamicRelu(each, dim) for each in hidden)
        self.reduce = nn.ModuleList(ConvBnAct(each, outputs, act=None) for each in hidden)

    @override
    def convolved(self, x: Tensor, tokens: Tensor) -> Tensor:
        halved: Tensor = self.reduce[0](self.acts[0](self.widen[0](x), tokens))
        mixed: Tensor = self.reduce[1](self.acts[1](self.widen[1](halved), tokens))
        return halved + mixed


class MobileFormer(nn.Module):
    """A classifier of images (B, 3, H, W): (B, classes).

    Args:
        stem: Channels of the stem.
        blocks: Expansion, width and stride of each block after the first.
        tokens: Number of tokens and their dimension.
        features: Width before the classifier.
        num_classes: Number of classes.
    """

    def __init__(
        self,
        stem: int,
        blocks: Sequence[tuple[int, int, int]],
        tokens: tuple[int, int],
        features: int,
        num_classes: int = 1000,
    ):
        super().__init__()
        self.num_classes, (_, dim) = num_classes, tokens
        self.tokens = nn.Parameter(torch.randn(1, *tokens))
        self.stem = ConvBnAct(3, stem, 3, 2, act=nn.ReLU6())
        widened = ConvBnAct(stem, 2 * stem, 3, groups=stem, act=nn.ReLU6())
        self.first = Residual(widened, ConvBnAct(2 * stem, stem, act=None))
        self.blocks, width = nn.ModuleList(), stem
        for expansion, out, stride in blocks:
            self.blocks.append((Downsampling if stride == 2 else Bottleneck)(width, out, expansion, dim))
            width = out
        self.last = MobileToFormer(width, dim)
        self.conv = ConvBnAct(width, 6 * width, act=nn.ReLU6())
        self.act = nn.Hardswish()
        self.merge = ConvBnAct(6 * width + dim, features, act=nn.Hardswish())
        self.classifier = nn.Linear(features, num_classes)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x))
        tokens = self.tokens.expand(len(x), -1, -1)
        for block in self.blocks:
            x, tokens = block(x, tokens)
        first = self.last(x, tokens)[:, 0, :, None, None]
        pooled = self.act(self.conv(x).mean((2, 3), keepdim=True))
        return self.classifier(self.merge(torch.cat([pooled, first], 1)).flatten(1))


default_cfgs = generate_default_cfgs({"mobile_former_96m": {"input_size": (3, 224, 224)}})
"""What timm looks up for the networks that this module registers."""


@register_model  # type: ignore[untyped-decorator]
def mobile_former_96m(
    pretrained: bool = False,  # noqa: ARG001
    num_classes: int = 1000,
    *,
    pretrained_cfg: object = None,  # noqa: ARG001
    pretrained_cfg_overlay: object = None,  # noqa: ARG001
    cache_dir: object = None,  # noqa: ARG001
) -> MobileFormer:
    """Return Mobile-Former-96M with random weights, the only ones there are; timm gives all of these arguments."""
    blocks = [
        (6, 16, 2),
        (6, 32, 2),
        (3, 32, 1),
        (6, 64, 2),
        (4, 64, 1),
        (6, 88, 1),
        (6, 128, 2),
        (6, 128, 1),
    ]
    return MobileFormer(12, blocks, (4, 128), 1280, num_classes)

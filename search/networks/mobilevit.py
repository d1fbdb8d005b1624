"""The MobileViT block (AutoViT section 3.2), written so that it lowers into few delegates.

Unfold and fold permute once, with channels last, the order in which XNNPACK keeps maps, and stay within
rank 5, the most that Core ML takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import BlockSpec, MobileViTLayer, MobileViTShell
from search.blocks.mobilevit import MobileViTv3Shell, ResizingShell
from search.networks.layers import ConvBnAct, attention
from search.networks.network import module_around, module_of


def unfold_patches(x: Tensor, patch: int) -> Tensor:
    """Unfold (B, d, H, W) into tokens (P * B, N, d): P = patch^2 pixel positions, N patches.

    Maps of other sides than whole patches are zero-padded.
    """
    batch, dim, height, width = x.shape
    if height % patch or width % patch:
        x = F.pad(x, (0, -width % patch, 0, -height % patch))
    rows, columns = x.shape[2] // patch, x.shape[3] // patch
    x = x.permute(0, 2, 3, 1).reshape(batch * rows, patch, columns, patch, dim)
    return x.permute(1, 3, 0, 2, 4).reshape(patch * patch * batch, rows * columns, dim)


def fold_patches(x: Tensor, patch: int, batch: int, height: int, width: int) -> Tensor:
    """Fold tokens to maps (B, d, height, width) without padding; the inverse of `unfold_patches`."""
    dim = x.shape[2]
    rows, columns = -(-height // patch), -(-width // patch)
    x = x.reshape(patch, patch, batch * rows, columns, dim).permute(2, 0, 3, 1, 4)
    x = x.reshape(batch, rows * patch, columns * patch, dim).permute(0, 3, 1, 2)
    return x[:, :, :height, :width] if height % patch or width % patch else x


@module_of.register(MobileViTLayer)
class TransformerLayer(nn.Module):
    """Pre-norm attention and MLP, each with a residual: (P * B, N, d) to the same shape."""

    def __init__(self, spec: MobileViTLayer):
        super().__init__()
        self.heads = spec.heads
        self.norm1 = nn.LayerNorm(spec.dim)
        self.qkv = nn.Linear(spec.dim, 3 * spec.inner)
        self.proj = nn.Linear(spec.inner, spec.dim)
        self.norm2 = nn.LayerNorm(spec.dim)
        self.fc1 = nn.Linear(spec.dim, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.dim)

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(attention(self.qkv(self.norm1(x)), self.heads))
        return x + self.fc2(F.silu(self.fc1(self.norm2(x))))


@module_around.register(MobileViTShell)
class MobileViTBlock(nn.Module):
    """Local convolutions, transformer layers over unfolded patches, fusion with the input; same shape."""

    def __init__(self, shell: MobileViTShell, layers: Sequence[BlockSpec]):
        super().__init__()
        self.patch = shell.patch
        self.local = ConvBnAct(shell.channels, shell.channels, 3, act=nn.SiLU())
        self.to_tokens = nn.Conv2d(shell.channels, shell.dim, 1, bias=False)
        self.layers = nn.Sequential(*(module_of(layer) for layer in layers))
        self.norm = nn.LayerNorm(shell.dim)
        self.from_tokens = ConvBnAct(shell.dim, shell.channels, act=nn.SiLU())
        self.fusion = ConvBnAct(2 * shell.channels, shell.channels, 3, act=nn.SiLU())

    @override
    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.to_tokens(self.local(x)))
        return self.fusion(torch.cat((x, self.from_tokens(mixed)), 1))

    def mix(self, x: Tensor) -> Tensor:
        """Run the transformer layers over the patches of (B, d, H, W)."""
        batch, _, height, width = x.shape
        tokens = self.norm(self.layers(unfold_patches(x, self.patch)))
        return fold_patches(tokens, self.patch, batch, height, width)


@module_around.register(ResizingShell)
class ResizingBlock(MobileViTBlock):
    """A block whose map is resized bilinearly to whole patches before the layers and back after them."""

    @override
    def mix(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        whole = [-(-side // self.patch) * self.patch for side in size]
        if list(size) == whole:
            return super().mix(x)
        resized = F.interpolate(x, whole, mode="bilinear", align_corners=False)
        return F.interpolate(super().mix(resized), size, mode="bilinear", align_corners=False)


@module_around.register(MobileViTv3Shell)
class MobileViTv3Block(ResizingBlock):
    """MobileViTv3's block: depthwise local convolution, 1x1 fusion of local and global maps, the input added."""

    def __init__(self, shell: MobileViTv3Shell, layers: Sequence[BlockSpec]):
        super().__init__(shell, layers)
        self.local = ConvBnAct(shell.channels, shell.channels, 3, groups=shell.channels, act=nn.SiLU())
        self.fusion = ConvBnAct(shell.dim + shell.channels, shell.channels, act=nn.SiLU())

    @override
    def forward(self, x: Tensor) -> Tensor:
        local = self.to_tokens(self.local(x))
        fused: Tensor = self.fusion(torch.cat((local, self.from_tokens(self.mix(local))), 1))
        return fused + x

"""LocalViT's layer (Li et al. 2021, figure 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.blocks.localvit import LocalVitLayer
from search.networks.layers import ConvBnAct, Residual
from search.networks.maps import to_map, to_tokens
from search.networks.module import module_of
from search.networks.tokens import AttentionBranch


class Excitation(nn.Module):
    """Channels scaled by h-sigmoid(W2 relu(W1 mean)), with biases."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu())
        return x * (F.relu6(gate + 3.0) * (1 / 6))


class LocalVitLayerModule(nn.Module):
    """(B, 1 + side^2, d) to the same shape: attention on all tokens, convolutions on all but the first."""

    def __init__(self, spec: LocalVitLayer):
        super().__init__()
        self.side = spec.resolution
        self.attention = AttentionBranch(spec.dim, spec.heads, qkv_bias=True)
        self.local = Residual(
            ConvBnAct(spec.dim, spec.hidden, act=nn.Hardswish()),
            ConvBnAct(spec.hidden, spec.hidden, 3, groups=spec.hidden, act=nn.Hardswish()),
            Excitation(spec.hidden, spec.squeezed),
            ConvBnAct(spec.hidden, spec.dim, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return torch.cat((x[:, :1], to_tokens(self.local(to_map(x[:, 1:], self.side)))), 1)


module_of.register(LocalVitLayer, LocalVitLayerModule)

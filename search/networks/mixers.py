"""Modules of token mixers and of MetaFormer's block around them: (B, C, H, W) to the same shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from search.blocks import BlockSpec
from search.blocks import mixers as specs
from search.blocks.metaformer import ChannelMlp, MixerShell
from search.networks.layers import (
    ChannelNorm,
    FixedValue,
    ParallelConvs,
    RelativeBias,
    Residual,
    attend,
    attention,
    attention_scores,
    join_heads,
    positive_features,
    split_heads,
    to_map,
    to_tokens,
)
from search.networks.network import module_around, module_of

NORM_EPS = 1e-12
"""Smallest divisor, as in `torch.nn.functional.normalize`."""


@module_of.register(specs.MultiHeadAttention)
class MultiHeadAttention(nn.Module):
    """Self-attention of all tokens (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, spec: specs.MultiHeadAttention):
        super().__init__()
        self.heads = spec.heads
        self.qkv = nn.Linear(spec.channels, 3 * spec.channels)
        self.proj = nn.Linear(spec.channels, spec.channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return to_map(self.proj(attention(self.qkv(to_tokens(x)), self.heads)), x.shape[2])


@module_of.register(specs.WindowAttention)
class WindowAttention(nn.Module):
    """Self-attention inside windows that do not overlap, with Swin's relative bias: one, or `biases` of windows."""

    biases = 1

    def __init__(self, spec: specs.WindowAttention):
        super().__init__()
        self.heads, self.window = spec.heads, spec.window
        self.qkv = nn.Linear(spec.channels, 3 * spec.channels)
        self.bias = RelativeBias(spec.window, spec.heads)
        self.proj = nn.Linear(spec.channels, spec.channels)

    def cut(self, x: Tensor) -> Tensor:
        """Return windows (B * windows, window^2, C) of a map."""
        batch, channels, height, width = x.shape
        side, rows, columns = self.window, height // self.window, width // self.window
        x = x.permute(0, 2, 3, 1).reshape(batch * rows, side, columns, side, channels)
        return x.permute(0, 2, 1, 3, 4).reshape(batch * rows * columns, side * side, channels)

    def join(self, x: Tensor, batch: int, height: int, width: int) -> Tensor:
        """Return the map of windows; the inverse of `cut`."""
        side, rows, columns = self.window, height // self.window, width // self.window
        x = x.reshape(batch * rows, columns, side, side, x.shape[2]).permute(0, 2, 1, 3, 4)
        return x.reshape(batch, height, width, x.shape[4]).permute(0, 3, 1, 2)

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(self.cut(x)), 3, self.heads)
        scores = attention_scores(q, k, self.heads * self.biases, self.bias())
        mixed = self.proj(join_heads(torch.bmm(scores, v), self.heads))
        return self.join(mixed, x.shape[0], *x.shape[2:])


@module_of.register(specs.SpatialReductionAttention)
class SpatialReductionAttention(nn.Module):
    """Queries of all tokens, keys and values of a map reduced by a strided convolution (PVT)."""

    def __init__(self, spec: specs.SpatialReductionAttention):
        super().__init__()
        channels = spec.channels
        self.heads = spec.heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr = nn.Conv2d(channels, channels, spec.reduction, spec.reduction)
        self.norm = nn.LayerNorm(channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        (q,) = split_heads(self.q(to_tokens(x)), 1, self.heads)
        k, v = split_heads(self.kv(self.norm(to_tokens(self.sr(x)))), 2, self.heads)
        return to_map(self.proj(attend(q, k, v, self.heads)), x.shape[2])


@module_of.register(specs.ShuntedAttention)
class ShuntedAttention(nn.Module):
    """Halves of the heads with keys and values of maps reduced at two rates (Ren et al. 2022)."""

    def __init__(self, spec: specs.ShuntedAttention):
        super().__init__()
        channels, half = spec.channels, spec.channels // 2
        rates = (spec.reduction, spec.reduction // 2)
        self.heads = spec.heads // 2
        self.q = nn.ModuleList(nn.Linear(channels, half) for _ in rates)
        self.kv = nn.ModuleList(nn.Linear(channels, channels) for _ in rates)
        self.sr = nn.ModuleList(nn.Conv2d(channels, channels, rate, rate) for rate in rates)
        self.norm = nn.ModuleList(nn.LayerNorm(channels) for _ in rates)
        self.local = nn.ModuleList(nn.Conv2d(half, half, 3, padding=1, groups=half) for _ in rates)
        self.proj = nn.Linear(channels, channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        halves: list[Tensor] = []
        for query, kv, sr, norm, local in zip(self.q, self.kv, self.sr, self.norm, self.local, strict=True):
            (q,) = split_heads(query(to_tokens(x)), 1, self.heads)
            reduced = sr(x)
            keys, values = kv(F.gelu(norm(to_tokens(reduced)))).chunk(2, 2)
            values = to_map(values, reduced.shape[2])
            values = to_tokens(values + local(values))
            (k,), (v,) = split_heads(keys, 1, self.heads), split_heads(values, 1, self.heads)
            halves.append(attend(q, k, v, self.heads))
        return to_map(self.proj(torch.cat(halves, 2)), x.shape[2])


@module_of.register(specs.LinformerAttention)
class LinformerAttention(nn.Module):
    """Attention whose keys and values are mixed over tokens to fewer (Wang et al. 2020, equation 7)."""

    def __init__(self, spec: specs.LinformerAttention):
        super().__init__()
        self.heads, self.head_dim = spec.heads, spec.head_dim
        self.q = nn.Linear(spec.channels, spec.channels)
        self.k, self.v = (nn.Conv2d(spec.channels, spec.channels, 1) for _ in range(2))
        self.fewer_k, self.fewer_v = (nn.Linear(spec.tokens, spec.keys) for _ in range(2))
        self.proj = nn.Linear(spec.channels, spec.channels)

    @override
    def forward(self, x: Tensor) -> Tensor:
        (q,) = split_heads(self.q(to_tokens(x)), 1, self.heads)
        k, v = self.fewer_k(self.k(x).flatten(2)), self.fewer_v(self.v(x).flatten(2))
        k, v = (part.reshape(len(q), self.head_dim, -1) for part in (k, v))
        scores = torch.bmm(q * self.head_dim**-0.5, k).softmax(-1)
        mixed = join_heads(torch.bmm(scores, v.transpose(1, 2)), self.heads)
        return to_map(self.proj(mixed), x.shape[2])


@module_of.register(specs.PoolMixer)
class PoolMixer(nn.Module):
    """PoolFormer (Yu et al. 2022, equation 4): average over a neighbourhood minus the pixel."""

    def __init__(self, spec: specs.PoolMixer):
        super().__init__()
        self.pool = nn.AvgPool2d(spec.kernel, stride=1, padding=spec.kernel // 2, count_include_pad=False)

    @override
    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


@module_of.register(specs.FourierFilter)
class FourierFilter(nn.Module):
    """GFNet's global filter (Rao et al. 2021, equation 4): DFT, complex weights, inverse DFT.

    Mobile backends have neither complex numbers nor FFT, so the orthonormal DFT of each dimension is a real
    matrix product on real and imaginary parts side by side. A real map's spectrum is symmetric: as
    `torch.fft.rfft2`, only side // 2 + 1 frequencies are kept along the width.
    """

    def __init__(self, spec: specs.FourierFilter):
        super().__init__()
        side = spec.resolution
        self.kept = kept = side // 2 + 1
        self.real = nn.Parameter(0.02 * torch.randn(spec.channels, kept, side))
        self.imag = nn.Parameter(0.02 * torch.randn(spec.channels, kept, side))
        cos, sin = _dft_matrices(side)
        both = torch.tensor([1.0 if k in (0, side / 2) else 2.0 for k in range(kept)], device="cpu")
        self.widths = FixedValue(torch.cat((cos[:kept], -sin[:kept])))
        self.heights = FixedValue(torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1))))
        self.heights_back = FixedValue(torch.cat((torch.cat((cos, -sin), 1), torch.cat((sin, cos), 1))))
        self.widths_back = FixedValue(torch.cat((cos[:, :kept] * both, -sin[:, :kept] * both), 1))

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, _ = x.shape
        kept = self.kept
        x = F.linear(x, self.widths(x)).reshape(batch * channels, height, 2, kept).permute(0, 3, 2, 1)
        x = F.linear(x.reshape(batch, channels, kept, 2 * height), self.heights(x))
        real, imag = x[..., :height], x[..., height:]
        x = torch.cat((real * self.real - imag * self.imag, real * self.imag + imag * self.real), -1)
        x = F.linear(x, self.heights_back(x)).reshape(batch * channels, kept, 2, height).permute(0, 3, 2, 1)
        return F.linear(x.reshape(batch, channels, height, 2 * kept), self.widths_back(x))


def _dft_matrices(side: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin (side, side) of 2 pi j k / side over sqrt(side).

    They are the real and the negative imaginary part of the orthonormal DFT.
    """
    place = torch.arange(side, dtype=torch.float64, device="cpu")
    angle = 2 * torch.pi * torch.outer(place, place) / side
    return (angle.cos() * side**-0.5).float(), (angle.sin() * side**-0.5).float()


@module_of.register(specs.TokenMlp)
class TokenMlp(nn.Module):
    """Token mixing of MLP-Mixer (Tolstikhin et al. 2021, equation 1): an MLP over tokens, shared by channels."""

    def __init__(self, spec: specs.TokenMlp):
        super().__init__()
        self.fc1 = nn.Linear(spec.tokens, spec.hidden)
        self.fc2 = nn.Linear(spec.hidden, spec.tokens)

    @override
    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.fc1(x.flatten(2))))
        return mixed.reshape(x.shape)


@module_of.register(specs.SeparableAttention)
class SeparableAttention(nn.Module):
    """MobileViTv2 (Mehta & Rastegari 2022, section 3.1): one channel of scores weighs keys into a context."""

    def __init__(self, spec: specs.SeparableAttention):
        super().__init__()
        self.qkv = ParallelConvs(spec.channels, (1, spec.channels, spec.channels))
        self.out = nn.Conv2d(spec.channels, spec.channels, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(x)
        scores = q.reshape(batch, 1, height * width).softmax(-1)
        context = torch.bmm(k.reshape(batch, channels, height * width), scores.transpose(1, 2))
        return self.out(v.relu() * context.reshape(batch, channels, 1, 1))


@module_of.register(specs.AdditiveAttention)
class AdditiveAttention(nn.Module):
    """SwiftFormer's efficient additive attention (Shaker et al. 2023, equations 6 to 8), one head.

    Norms and sums over tokens are matrix products, which XNNPACK has; it has no `sum`.
    """

    def __init__(self, spec: specs.AdditiveAttention):
        super().__init__()
        channels = spec.channels
        self.scale = channels**-0.5
        self.to_query = nn.Linear(channels, channels)
        self.to_key = nn.Linear(channels, channels)
        self.score = nn.Linear(channels, 1, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.final = nn.Linear(channels, channels)
        self.ones = FixedValue(torch.ones(1, channels, device="cpu"))

    def _normalised(self, x: Tensor) -> Tensor:
        """Return tokens of unit length."""
        return x / F.linear(x * x, self.ones(x)).sqrt().clamp(min=NORM_EPS)

    @override
    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        query = self._normalised(self.to_query(tokens))
        key = self._normalised(self.to_key(tokens))
        scores = (self.score(query) * self.scale).transpose(1, 2)
        length = torch.bmm(scores, scores.transpose(1, 2)).sqrt().clamp(min=NORM_EPS)
        context = torch.bmm(scores / length, query)
        return to_map(self.final(self.proj(context * key) + query), x.shape[2])


@module_of.register(specs.LinearAttention)
class LinearAttention(nn.Module):
    """Katharopoulos et al. 2020, equation 5, feature map elu(x) + 1 (equation 7): keys times values first."""

    def __init__(self, spec: specs.LinearAttention):
        super().__init__()
        self.heads = spec.heads
        self.qkv = nn.Linear(spec.channels, 3 * spec.channels)
        self.proj = nn.Linear(spec.channels, spec.channels)
        self.ones = FixedValue(torch.ones(1, spec.tokens, device="cpu"))

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(to_tokens(x)), 3, self.heads)
        q, k = self.map_features(q), self.map_features(k).transpose(1, 2)
        mixed = torch.bmm(q, torch.bmm(k, v)) / torch.bmm(q, F.linear(k, self.ones(k)))
        return to_map(self.proj(join_heads(mixed, self.heads)), x.shape[2])

    def map_features(self, x: Tensor) -> Tensor:
        """Return elu(x) + 1.

        Written without `elu`, which ExecuTorch's XNNPACK backend leaves outside of delegates.
        """
        return x.relu() + x.clamp(max=0).exp()


@module_of.register(specs.PerformerAttention)
class PerformerAttention(LinearAttention):
    """Linear attention whose features are orthogonal random projections (Choromanski et al. 2021, equation 5)."""

    def __init__(self, spec: specs.PerformerAttention):
        super().__init__(spec)
        features = torch.empty(spec.features, spec.head_dim, device="cpu")
        nn.init.orthogonal_(features, spec.head_dim**0.5, torch.Generator().manual_seed(0))
        self.features = FixedValue(features)
        self.halves = FixedValue(torch.full((1, spec.head_dim), 0.5, device="cpu"))

    @override
    def map_features(self, x: Tensor) -> Tensor:
        """Return positive features whose products estimate exp(q k / sqrt(head_dim))."""
        return positive_features(x * x.shape[2] ** -0.25, self.features(x), self.halves(x))


@module_of.register(specs.SpatialGating)
class SpatialGating(nn.Module):
    """Linear layer and GELU, a gate that is a linear layer over tokens, linear layer (gMLP)."""

    def __init__(self, spec: specs.SpatialGating):
        super().__init__()
        self.fc1 = nn.Linear(spec.channels, 2 * spec.hidden)
        self.norm = nn.LayerNorm(spec.hidden)
        self.mix = nn.Linear(spec.tokens, spec.tokens)
        self.fc2 = nn.Linear(spec.hidden, spec.channels)
        nn.init.normal_(self.mix.weight, std=1e-6)
        nn.init.ones_(self.mix.bias)

    @override
    def forward(self, x: Tensor) -> Tensor:
        both = F.gelu(self.fc1(to_tokens(x)))
        hidden = both.shape[2] // 2
        gate = self.mix(self.norm(both[..., hidden:]).transpose(1, 2)).transpose(1, 2)
        return to_map(self.fc2(both[..., :hidden] * gate), x.shape[2])


@module_around.register(MixerShell)
class MixerBlock(nn.Module):
    """x + mixers(norm(x)), without a mixer x + norm(x)."""

    def __init__(self, shell: MixerShell, mixers: Sequence[BlockSpec]):
        super().__init__()
        self.norm = ChannelNorm(shell.channels)
        self.layers = nn.Sequential(*(module_of(mixer) for mixer in mixers))

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(self.norm(x))


@module_of.register
def channel_mlp(spec: ChannelMlp) -> nn.Module:
    """Create norm, 1x1 convolution, GELU and 1x1 convolution with a residual."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        norm=ChannelNorm(spec.channels),
        expand=nn.Conv2d(spec.channels, spec.hidden, 1),
        act=nn.GELU(),
        project=nn.Conv2d(spec.hidden, spec.channels, 1),
    )
    return Residual(parts)

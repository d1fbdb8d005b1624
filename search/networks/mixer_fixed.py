"""Mixers whose weights between tokens do not depend on the tokens: a pool, a filter of frequencies, an MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search.blocks import mixer_fixed as specs
from search.networks.module import module_of


class PoolMixer(nn.Module):
    """PoolFormer (Yu et al. 2022, equation 4): average over a neighbourhood, without what it is the average at."""

    def __init__(self, kernel: int):
        super().__init__()
        self.pool = nn.AvgPool2d(kernel, stride=1, padding=kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.pool(x) - x
        return mixed


class FourierFilter(nn.Module):
    """GFNet's global filter (Rao et al. 2021, equation 4): 2-D DFT, a complex weight a frequency, inverse DFT.

    Mobile backends have neither complex numbers nor FFT, so the orthonormal DFT of each dimension is a real
    matrix product on real and imaginary parts side by side. A real map's spectrum is symmetric: as
    `torch.fft.rfft2`, only side // 2 + 1 frequencies are kept along the width.
    """

    widths: Tensor
    heights: Tensor
    heights_back: Tensor
    widths_back: Tensor

    def __init__(self, channels: int, side: int):
        super().__init__()
        self.kept = kept = side // 2 + 1
        self.real = nn.Parameter(0.02 * torch.randn(channels, kept, side))
        self.imag = nn.Parameter(0.02 * torch.randn(channels, kept, side))
        cos, sin = _waves(side)
        both = torch.tensor([1.0 if k in (0, side / 2) else 2.0 for k in range(kept)])
        self._constant("widths", torch.cat((cos[:kept], -sin[:kept])))
        self._constant("heights", torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1))))
        self._constant("heights_back", torch.cat((torch.cat((cos, -sin), 1), torch.cat((sin, cos), 1))))
        self._constant("widths_back", torch.cat((cos[:, :kept] * both, -sin[:, :kept] * both), 1))

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, _ = x.shape
        kept = self.kept
        x = F.linear(x, self.widths).reshape(batch * channels, height, 2, kept).permute(0, 3, 2, 1)
        x = F.linear(x.reshape(batch, channels, kept, 2 * height), self.heights)
        real, imag = x[..., :height], x[..., height:]
        x = torch.cat((real * self.real - imag * self.imag, real * self.imag + imag * self.real), -1)
        x = F.linear(x, self.heights_back).reshape(batch * channels, kept, 2, height).permute(0, 3, 2, 1)
        return F.linear(x.reshape(batch, channels, height, 2 * kept), self.widths_back)


def _waves(side: int) -> tuple[Tensor, Tensor]:
    """cos and sin (side, side) of 2 pi j k / side over sqrt(side): real part and minus the imaginary part of the
    orthonormal DFT."""
    place = torch.arange(side, dtype=torch.float64)
    angle = 2 * torch.pi * torch.outer(place, place) / side
    return (angle.cos() * side**-0.5).float(), (angle.sin() * side**-0.5).float()


class TokenMlp(nn.Module):
    """Token mixing of MLP-Mixer (Tolstikhin et al. 2021, equation 1): an MLP over tokens, shared by channels."""

    def __init__(self, tokens: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(tokens, hidden)
        self.fc2 = nn.Linear(hidden, tokens)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.fc1(x.flatten(2))))
        return mixed.reshape(x.shape)


module_of.register(specs.PoolMixer, lambda spec: PoolMixer(spec.kernel))
module_of.register(specs.FourierFilter, lambda spec: FourierFilter(spec.channels, spec.resolution))
module_of.register(specs.TokenMlp, lambda spec: TokenMlp(spec.tokens, spec.hidden))

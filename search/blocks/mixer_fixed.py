"""Mixers without attention: pool (PoolFormer), filter of frequencies (GFNet), MLP over tokens (MLP-Mixer)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from search.blocks.mixer import TokenMixer
from search.blocks.registry import register
from search.blocks.spec import Macs, param


@register
@dataclasses.dataclass(frozen=True)
class PoolMixer(TokenMixer):
    """PoolFormer (Yu et al. 2022, equation 4): average over k x k pixels minus the pixel; no weights, no MACs."""

    kind: ClassVar[str] = "mix.pool"
    complexity: ClassVar[str] = "k^2 N d additions"
    examples: ClassVar[tuple[str, ...]] = ("mix.pool(c=16,k=5)@5", "mix.pool(c=8,k=3)@8")

    kernel: int = param("k")

    def params(self) -> int:
        return 0

    def macs(self) -> Macs:
        return Macs(0, 0)

    def traffic_elements(self) -> int:
        return 5 * self.out_elements

    def live_elements(self) -> int:
        return 3 * self.out_elements


@register
@dataclasses.dataclass(frozen=True)
class FourierFilter(TokenMixer):
    """GFNet (Rao et al. 2021, equation 4), the DFT as matrix products: mobile backends have no FFT."""

    kind: ClassVar[str] = "mix.fourier"
    complexity: ClassVar[str] = "6 N^1.5 d as matrix products (2 N d log2 N + N d by FFT)"
    examples: ClassVar[tuple[str, ...]] = ("mix.fourier(c=16)@5", "mix.fourier(c=8)@8")

    @property
    def kept(self) -> int:
        """Frequencies along the width; the others are conjugates."""
        return self.resolution // 2 + 1

    @property
    def spectrum(self) -> int:
        """Real and imaginary parts of all channels."""
        return 2 * self.channels * self.kept * self.resolution

    def params(self) -> int:
        return self.spectrum

    def macs(self) -> Macs:
        widths = 2 * self.resolution * self.spectrum
        heights = 2 * 2 * self.resolution * self.spectrum
        return Macs(0, widths + heights)

    def traffic_elements(self) -> int:
        products, layouts, weights, join = 6, 4, 8, 2
        return 2 * self.out_elements + (products + layouts + weights + join) * self.spectrum

    def live_elements(self) -> int:
        return max(self.out_elements + self.spectrum, 5 * self.spectrum // 2)


@register
@dataclasses.dataclass(frozen=True)
class TokenMlp(TokenMixer):
    """MLP-Mixer (Tolstikhin et al. 2021, equation 1): tokens to `hidden` and back with GELU, shared by channels."""

    kind: ClassVar[str] = "mix.mlp"
    complexity: ClassVar[str] = "2 N d h"
    examples: ClassVar[tuple[str, ...]] = ("mix.mlp(c=16,hidden=8)@5", "mix.mlp(c=8,hidden=16)@8")

    hidden: int = param("hidden")

    def params(self) -> int:
        return 2 * self.tokens * self.hidden + self.hidden + self.tokens

    def macs(self) -> Macs:
        macs = 2 * self.channels * self.tokens * self.hidden
        return Macs(macs, macs)

    def traffic_elements(self) -> int:
        return 2 * self.out_elements + 4 * self.channels * self.hidden

    def live_elements(self) -> int:
        hidden = self.channels * self.hidden
        return hidden + max(self.out_elements, hidden)

"""NASWOT: ranks networks with random weights by how differently they respond to different images."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.networks import build_network
from search.spaces import Arch
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source

IMAGES = 128
"""Images of a batch, as in the paper."""

SEED = 0
"""Seed of the weights, of the noise and of the choice of images."""

TYPICAL = 1000.0
"""Score that becomes 0.5: scores of networks with 10^5 units are of this size."""


@dataclass(frozen=True)
class NaswotScore:
    """The logarithm of the determinant of the kernel of activation patterns (Mellor et al. 2021, equation 2).

    Two images are as similar as the number of units that are active, or inactive, for both. A unit is active where
    the input of its activation function is positive, also for functions other than ReLU.

    Attributes:
        data: Images; None for normal noise.
    """

    data: ImageData | None

    @classmethod
    def open(cls, source: str | None) -> NaswotScore:
        """Open an image source; raises like `open_source`."""
        return cls(ImageData(open_source(source)) if source else None)

    @property
    def fingerprint(self) -> str:
        """Digest of the images."""
        images = self.data.source.digest if self.data else "noise"
        return hashlib.sha256(f"naswot 1 {images} {IMAGES} {SEED}".encode()).hexdigest()

    def accuracy(self, arch: Arch) -> float:
        """Return the score s as s / (s + 1000), 0 where the determinant is."""
        score = max(0.0, naswot(_with_random_weights(arch), self._images(arch.resolution)))
        return score / (score + TYPICAL)

    def _images(self, resolution: int) -> Tensor:
        if self.data is None:
            return torch.randn(
                IMAGES, 3, resolution, resolution, generator=torch.Generator().manual_seed(SEED)
            )
        train = torch.from_numpy(self.data.split.train)
        chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(SEED))[:IMAGES]]
        return self.data.batch(chosen.numpy(), resolution)[0]


def _with_random_weights(arch: Arch) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_network(arch.blocks())


ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.GELU, nn.Hardswish, nn.SiLU)


@torch.no_grad()
def naswot(network: nn.Module, images: Tensor) -> float:
    """Return log |K| of a network with BN statistics of the batch; minus infinity where two images are alike.

    Args:
        network: Its activation functions are modules of `ACTIVATIONS`.
        images: (B, 3, H, W).
    """
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64)

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs  # (B, ...), or of MobileViT's patches (P B, ...), the images next to each other
        sequences = x.reshape(-1, len(images), x[0].numel())
        active = sequences.transpose(0, 1).reshape(len(images), -1) > 0
        signs = torch.where(active, 1.0, -1.0)  # equal ones add 1, others take 1 away
        kernel.add_((signs.shape[1] + signs @ signs.T) / 2)

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, ACTIVATIONS):
                hooks.enter_context(module.register_forward_pre_hook(add))
        network.train()(images)
    return float(torch.linalg.slogdet(kernel).logabsdet)

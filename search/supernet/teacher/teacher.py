"""A pretrained timm network whose decisions a supernet learns from (AutoViT section 5.1)."""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from luts.format.errors import UsageError
from search.supernet.data.augment import MEAN, STD
from search.supernet.data.images import ImageData
from search.supernet.model.tensors import tensors_digest

CHECK_IMAGES = 256
"""Training images on which a teacher must do better than chance."""


class Teacher:
    """Logits of a frozen classifier for normalised images."""

    def __init__(self, name: str, model: nn.Module, side: int | None = None):
        """`side`: pixels of the images that it sees; None for those that timm gives for it."""
        self.name = name
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        config = getattr(model, "pretrained_cfg", None) or {}
        self.side = side or int(config.get("input_size", (3, 224, 224))[-1])
        mean, std = torch.tensor(config.get("mean", MEAN)), torch.tensor(config.get("std", STD))
        self._scale = (torch.tensor(STD) / std)[:, None, None]
        self._shift = ((torch.tensor(MEAN) - mean) / std)[:, None, None]

    @cached_property
    def digest(self) -> str:
        """sha256 of its weights and of how it sees an image."""
        seen_as = f"{self.side}{self._scale.tolist()}{self._shift.tolist()}"
        return tensors_digest(self.model.state_dict(), seen_as)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Z_t, (B, classes); `images` as `ImageData` normalises them."""
        logits: Tensor = self.model(self.seen(images))
        return logits

    def seen(self, images: Tensor) -> Tensor:
        """What its network gets for images as `ImageData` normalises them: other pixels, its own normalisation."""
        x = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return x * self._scale.to(x.device) + self._shift.to(x.device)

    def check(self, data: ImageData, resolution: int) -> None:
        """Refuse a teacher that knows nothing of the data, such as one with random weights.

        Raises:
            UsageError: on a few training images it is no better than three times chance (or 3 of 4 right).
        """
        picked = data.split.train[:: max(1, len(data.split.train) // CHECK_IMAGES)]
        hits = [(self.logits(x).argmax(1) == y).float() for x, y in data.batches(picked, resolution, 32)]
        accuracy = torch.cat(hits).mean().item()
        if accuracy < min(3 / data.classes, 0.75):
            raise UsageError(
                f"teacher {self.name} gets {accuracy:.1%} of {len(picked)} training images right, about chance; "
                "give one trained on these classes, in this order"
            )

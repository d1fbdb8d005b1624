"""How a network is trained for detection or segmentation, as a value that its checkpoint records."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class DenseRecipe(BaseModel):
    """Hyper-parameters of a run: AdamW, a linear warm-up, then half a cosine down to 0.

    Attributes:
        learning_rate: Peak, of the head.
        backbone_rate: The backbone's learning rate, as a share of the head's: less where it is trained already.
        weight_decay: Of weights with more than one dimension.
        warmup_epochs: Of linear growth to the peak.
        clip_norm: Largest global norm of the gradients; 0 for no bound.
        augmented: Whether training images are cropped, scaled and mirrored.
        freeze: Whether the backbone stands still, the statistics of its BN too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(ge=1, le=100_000, default=20)
    batch_size: int = Field(ge=2, le=65_536, default=16)
    learning_rate: float = Field(gt=0, le=1, default=1e-3)
    backbone_rate: float = Field(gt=0, le=1, default=0.3)
    weight_decay: float = Field(ge=0, lt=1, default=1e-2)
    warmup_epochs: float = Field(ge=0, default=1)
    clip_norm: float = Field(ge=0, default=5.0)
    augmented: bool = True
    freeze: bool = False
    seed: int = Field(ge=0, lt=2**32, default=0)

    def rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The head's learning rate of a step from 0."""
        warmup, total = self.warmup_epochs * steps_per_epoch, self.epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1.0, total - warmup)))

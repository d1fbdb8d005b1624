"""How a supernet is trained, as a value that checkpoints record."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from luts.errors import UsageError

_Decay = Annotated[float, Field(ge=0, lt=1)]


class Recipe(BaseModel):
    """Hyper-parameters of one training run.

    Attributes:
        resolutions: Input resolutions to sample from; empty means the space's default alone.
        learning_rate: Peak of the cosine schedule.
        warmup_epochs: Epochs of linear growth to the peak.
        clip_norm: Largest global norm of the gradients.
        distillation: alpha of AutoViT's equation 4, the share of the teacher's hard labels in the loss;
            it counts only where a teacher is given.
        held_out: Share of each class kept from training for the search, and as much again for validation
            where the source has no validation set.
        save_epochs: Epochs between checkpoints; one is always written at the end.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(max_length=64)
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(ge=2, le=65_536)
    learning_rate: float = Field(gt=0, le=1)
    warmup_epochs: float = Field(ge=0, default=5)
    weight_decay: float = Field(ge=0, lt=1, default=0.05)
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    label_smoothing: float = Field(ge=0, lt=1, default=0.1)
    clip_norm: float = Field(gt=0, default=5.0)
    distillation: float = Field(ge=0, le=1, default=0.5)
    augment: bool = True
    held_out: float = Field(gt=0, le=0.4, default=0.1)
    resolutions: tuple[int, ...] = ()
    save_epochs: int = Field(ge=1, default=1)
    seed: int = Field(ge=0, lt=2**32, default=0)

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Learning rate of a step counted from 0: linear warm-up, then half a cosine down to 0."""
        total, warmup = self.epochs * steps_per_epoch, self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(1.0, total - warmup)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


_RECIPES = (
    Recipe(
        name="demo",
        epochs=15,
        batch_size=64,
        learning_rate=2e-3,
        warmup_epochs=2,
        label_smoothing=0.05,
        held_out=0.2,
        save_epochs=5,
    ),
    Recipe(name="default", epochs=100, batch_size=128, learning_rate=1e-3),
)


def get_recipe(name: str) -> Recipe:
    """A preset by name; `UsageError` names the known ones."""
    for recipe in _RECIPES:
        if recipe.name == name:
            return recipe
    raise UsageError(f"unknown recipe {name!r}; known: {', '.join(recipe.name for recipe in _RECIPES)}")

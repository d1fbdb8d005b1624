"""How a supernet is trained, as a value that checkpoints record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.errors import UsageError
from search.supernet.distill import Distillation
from search.supernet.samplers import SamplerName

_Decay = Annotated[float, Field(ge=0, lt=1)]


NOT_OF_IMAGES = (
    "name",
    "epochs",
    "learning_rate",
    "warmup_epochs",
    "weight_decay",
    "betas",
    "label_smoothing",
    "clip_norm",
    "distillation",
    "sampler",
    "sandwich_randoms",
    "params_range",
    "save_epochs",
)
"""Fields that change no image of a step: a teacher's answers hold whatever they are."""


class Recipe(BaseModel):
    """Hyper-parameters of one training run.

    Attributes:
        resolutions: Input resolutions to sample from; empty means the space's default alone.
        learning_rate: Peak of the cosine schedule.
        warmup_epochs: Epochs of linear growth to the peak.
        clip_norm: Largest global norm of the gradients.
        distillation: How a teacher's decisions enter the loss; it counts only where a teacher is given.
        augmentation_epochs: Epochs after which batches and their augmentation come again, in another order,
            so that stored teacher labels serve again; 0 for never.
        sampler: Which subnets a step trains.
        sandwich_randoms: Subnets of a `sandwich` besides the largest and the smallest.
        params_range: Least and most parameters of trained subnets, for several supernets of one space.
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
    distillation: Distillation = Distillation()
    augmentation_epochs: int = Field(ge=0, le=10_000, default=0)
    sampler: SamplerName = "uniform"
    sandwich_randoms: int = Field(ge=0, le=64, default=2)
    params_range: tuple[int, int] | None = None
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

    def changed(self, changes: Mapping[str, object], distillation: Mapping[str, object]) -> Recipe:
        """With other values, those of `distillation` by name too; None keeps what is there.

        Raises:
            UsageError: a value that is none, named with what would be.
        """
        own = self.model_dump()
        own["distillation"] |= {name: value for name, value in distillation.items() if value is not None}
        own |= {name: value for name, value in changes.items() if value is not None}
        try:
            return type(self).model_validate(own)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(
                f"{'.'.join(map(str, first['loc']))} {first['input']!r}: {first['msg']}; see bench train --help"
            ) from error


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

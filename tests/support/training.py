"""Trainings of supernets on small sets of images, whole or cut off."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from search.supernet.recipe.recipe import Recipe
from search.supernet.train.supernet_task import SupernetTask
from search.supernet.train.trainer import Trainer

TINY = Recipe(name="tiny", epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0)
"""Two steps of 32 images."""


def supernet_trainer(*arguments: Any, **options: Any) -> Any:
    """Return the trainer of a `SupernetTask` with these arguments."""
    return Trainer(SupernetTask(*arguments, **options))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether all parameters are equal, bit by bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


class StoppedError(Exception):
    """Raised to cut a training off."""


def cut_off(trainer: Trainer, step: int) -> None:
    """Run a training until it reports this step, as if the process died then."""

    def stop(progress):
        if progress.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer.run(stop)

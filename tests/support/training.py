"""Trainings of supernets on small sets of images, whole or cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from search.supernet.recipe.recipe import Recipe
from search.supernet.train.supernet_task import SupernetTask
from search.supernet.train.trainer import Trainer

TINY = Recipe(name="tiny", epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0)
"""Two steps of 32 images."""


def supernet_trainer(*arguments: Any, teacher: Any = None, **options: Any) -> Any:
    """Return the trainer of a `SupernetTask` with these arguments, and with one teacher if it is given."""
    if teacher is not None:
        options["teachers"] = [teacher]
    return Trainer(SupernetTask(*arguments, **options))


def write_gratings(folder: Path, count: int) -> None:
    """Write an imagefolder of two classes with `count` images each: gratings across and down, with noise."""
    rng = np.random.default_rng(0)
    wave = np.sin(np.arange(24) * 1.3)
    for name, grating in (("across", np.tile(wave, (24, 1))), ("down", np.tile(wave[:, None], (1, 24)))):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noisy = 128 + 60 * grating[..., None] + rng.normal(0, 100, (24, 24, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:02}.png")


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

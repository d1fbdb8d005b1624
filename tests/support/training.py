"""Trainings of supernets on small sets of images, whole or cut off."""

from __future__ import annotations

from typing import Any

import pytest

from search.supernet.train.supernet_task import SupernetTask
from search.supernet.train.trainer import Trainer


def supernet_trainer(*arguments: Any, **options: Any) -> Any:
    """Return the trainer of a `SupernetTask` with these arguments."""
    return Trainer(SupernetTask(*arguments, **options))


class StoppedError(Exception):
    """Raised to cut a training off."""


def cut_off(trainer: Trainer, step: int) -> None:
    """Run a training until it reports this step, as if the process died then."""

    def stop(progress):
        if progress.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        trainer.run(stop)

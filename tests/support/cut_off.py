"""A training that is cut off."""

from __future__ import annotations

import pytest

from search.supernet.train.trainer import Trainer


class Stopped(Exception):
    """What cuts it off."""


def cut_off(trainer: Trainer, step: int) -> None:
    """Run it until it tells of this step, which raises."""

    def stop(progress):
        if progress.step == step:
            raise Stopped

    with pytest.raises(Stopped):
        trainer.run(stop)

"""A moving average of a supernet's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from search.supernet.model.tensors import copy_into


class WeightAverage:
    """Exponential moving average, all weights at every step.

    A weight that the sampled subnets leave alone stands still, and its average goes on toward it.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Iterable[Tensor], step: int) -> None:
        """Follow the weights, in the order of the constructor's, after `step` steps.

        The decay grows from 2/11 as (1 + step) / (10 + step), so that a short run forgets where it began.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        follow = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        follow(list(self.tensors.values()), [value.detach() for value in weights], step)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a checkpoint's averages.

        Raises:
            InvalidArtifactError: names or shapes are those of another network.
        """
        copy_into(self.tensors, tensors, "averaged weights belong to another supernet; train from the start")

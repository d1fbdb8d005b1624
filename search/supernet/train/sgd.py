"""torch's SGD with momentum as a run takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from search.supernet.model.slices import Slice
from search.supernet.model.tensors import copy_into


class PlainSgd:
    """torch.optim.SGD on whole parameters; biases and norms (one dimension) are not decayed.

    Unlike `SlicedAdamW` it moves what the sampled subnets leave out of a parameter, by momentum and weight decay,
    as most published supernets were trained; parameters that no sampled subnet has a part of stand still.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], momentum: float, weight_decay: float, nesterov: bool
    ):
        self.parameters = dict(parameters)
        groups = [
            {
                "params": [p for p in self.parameters.values() if (p.ndim > 1) is decayed],
                "weight_decay": weight_decay if decayed else 0.0,
            }
            for decayed in (True, False)
        ]
        self._sgd = torch.optim.SGD(
            [group for group in groups if group["params"]], lr=0.0, momentum=momentum, nesterov=nesterov
        )

    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:  # noqa: ARG002
        """Move all parameters that have gradients."""
        for group in self._sgd.param_groups:
            group["lr"] = learning_rate
        self._sgd.step()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self._sgd.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """Momentum under flat names, for a checkpoint; 0 where there is none yet: torch goes on alike."""
        kept = {name: self._sgd.state[p].get("momentum_buffer") for name, p in self.parameters.items()}
        return {
            f"{name}:momentum": torch.zeros_like(self.parameters[name], requires_grad=False)
            if buffer is None
            else buffer
            for name, buffer in kept.items()
        }

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave.

        Raises:
            InvalidArtifactError: names or shapes are those of another network.
        """
        state = self.state_tensors()
        copy_into(state, tensors, "optimizer state belongs to another supernet; train from the start")
        for name, p in self.parameters.items():
            self._sgd.state[p]["momentum_buffer"] = state[f"{name}:momentum"]

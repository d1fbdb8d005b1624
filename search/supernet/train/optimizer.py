"""AdamW whose step ends at the border of a subnet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from search.supernet.model.slices import Slice, disjoint
from search.supernet.model.tensors import copy_into

CHUNK_ELEMENTS = 1 << 16
"""Of weights that are updated together; with gradient and state they take 1.6 MB."""

_STATE = ("exp_avg", "exp_avg_sq", "mass", "mass_sq")
"""Both moments, and the moments of a constant 1: after t updates 1 - beta^t, the bias correction."""


class Optimizer(Protocol):
    """What moves the weights of a step's subnets, and what a checkpoint keeps of it."""

    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:
        """Update from the gradients; `slices`: of the step's subnets."""

    def zero_grad(self) -> None:
        """Drop all gradients."""

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state under flat names."""

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave; `InvalidArtifactError` for those of another network."""


class SlicedAdamW:
    """Decoupled weight decay Adam (Loshchilov & Hutter 2019, Algorithm 2) on slices of parameters.

    Algorithm 1 of AutoViT freezes all weights but the sampled subnet's. A plain AdamW would still move them,
    by momentum and by weight decay, so here weights, moments and bias corrections are kept element by
    element and change within the given slices alone. With the largest
    subnet at every step it is torch.optim.AdamW. Biases and norms (one dimension) are not decayed.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
    ):
        self.parameters = dict(parameters)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.state = {
            name: {key: torch.zeros_like(value, requires_grad=False) for key in _STATE}
            for name, value in self.parameters.items()
        }

    @torch.no_grad()
    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:
        """Update the slices, of one subnet or of several, from the gradients of their parameters."""
        for parts in _chunks(disjoint(slices)):
            self._step(parts, learning_rate)

    def _step(self, parts: Sequence[Slice], learning_rate: float) -> None:
        beta1, beta2 = self.betas
        weights, grads = [], []
        for part in parts:
            parameter = self.parameters[part.source]
            if parameter.grad is None:
                raise ValueError(f"{part.source} has no gradient; run backward on this subnet first")
            weights.append(part.region(parameter.data))
            grads.append(part.region(parameter.grad))
        means, squares, masses, square_masses = (
            [part.region(self.state[part.source][key]) for part in parts] for key in _STATE
        )
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        ones = [weights[0].new_ones(())] * len(weights)
        torch._foreach_lerp_(masses, ones, 1 - beta1)
        torch._foreach_lerp_(square_masses, ones, 1 - beta2)
        decayed = [
            weight
            for weight, part in zip(weights, parts, strict=True)
            if self.parameters[part.source].ndim > 1
        ]
        if decayed:
            torch._foreach_mul_(decayed, 1 - learning_rate * self.weight_decay)
        spreads = torch._foreach_div(squares, square_masses)
        torch._foreach_sqrt_(spreads)
        torch._foreach_add_(spreads, self.eps)
        torch._foreach_mul_(spreads, masses)
        torch._foreach_addcdiv_(weights, means, spreads, -learning_rate)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state under flat names, for a checkpoint."""
        return {f"{name}:{key}": value for name, kept in self.state.items() for key, value in kept.items()}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state_tensors` gave.

        Raises:
            InvalidArtifactError: names or shapes are those of another network.
        """
        refusal = "optimizer state belongs to another supernet; train from the start"
        copy_into(self.state_tensors(), tensors, refusal)


def _chunks(parts: Iterable[Slice]) -> Iterator[list[Slice]]:
    """Slices that are updated together: few calls, and all that they touch stays in the cache between them."""
    chunk: list[Slice] = []
    elements = 0
    for part in parts:
        chunk.append(part)
        elements += math.prod(part.shape)
        if elements >= CHUNK_ELEMENTS:
            yield chunk
            chunk, elements = [], 0
    if chunk:
        yield chunk


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Global L2 norm of all gradients; what a subnet does not use has gradient 0 or none."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

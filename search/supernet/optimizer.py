"""AdamW whose step ends at the border of a subnet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from luts.errors import InvalidArtifactError
from search.supernet.elastic import Slice

_STATE = ("exp_avg", "exp_avg_sq", "mass", "mass_sq")
"""Both moments, and the moments of a constant 1: after t updates 1 - beta^t, the bias correction."""


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
        """Update the slices from the gradients of their parameters."""
        beta1, beta2 = self.betas
        for part in slices:
            parameter, state = self.parameters[part.source], self.state[part.source]
            if parameter.grad is None:
                raise ValueError(f"{part.source} has no gradient; run backward on this subnet first")
            weight, grad = part.region(parameter.data), part.region(parameter.grad)
            mean, square, mass, mass_square = (part.region(state[key]) for key in _STATE)
            mean.lerp_(grad, 1 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            mass.mul_(beta1).add_(1 - beta1)
            mass_square.mul_(beta2).add_(1 - beta2)
            if parameter.ndim > 1:
                weight.mul_(1 - learning_rate * self.weight_decay)
            spread = (square / mass_square).sqrt_().add_(self.eps)
            weight.addcdiv_(mean, spread.mul_(mass), value=-learning_rate)

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
        expected = self.state_tensors()
        if {k: v.shape for k, v in expected.items()} != {k: v.shape for k, v in tensors.items()}:
            raise InvalidArtifactError("optimizer state belongs to another supernet; train from the start")
        for name, value in expected.items():
            value.copy_(tensors[name])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Global L2 norm of all gradients; what a subnet does not use has gradient 0 or none."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

"""Weights of a module to be exported: random ones that depend on the seed alone, or a safetensors file.

Random weights keep activations near unit scale through the whole network, BN statistics included, so that
a parity check means something and no latency is that of denormals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError
from search.supernet.model.weights_file import misfit, read_weights, unreadable_weights

MAX_SCALE = 1e3
"""Largest output of random weights that is left alone: far over those of our networks, far below fp16's end."""

MAX_GAIN = 30.0
"""Largest gain of random weights that is left alone: relative change of the output over that of the input.

Published networks have up to 0.6; at 1000 rounding alone is seen in the third digit, so that parity would mean
nothing.
"""

PERTURBATION = 1e-4
"""Relative change of the input by which the gain is told: far over rounding, small enough to be about linear."""

MAX_HALVINGS = 8
"""Of the linear weights of a network without norms; AutoViT-XXS needs two, MobileViT-XS and DeiT-T one."""


def build_seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module in eval mode with weights of `seed`, leaving the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            _draw(part, generator)
    return module


def _draw(part: nn.Module, generator: torch.Generator) -> None:
    """Convolutions after He et al. 2015 (gain 2, near SiLU's), linear layers with unit gain."""
    if isinstance(part, nn.Conv2d | nn.Linear):
        gain = 2.0 if isinstance(part, nn.Conv2d) else 1.0
        fan_in = part.weight[0].numel()
        part.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
        if part.bias is not None:
            part.bias.normal_(0.0, 0.1, generator=generator)
    elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
        if part.weight is not None:
            part.weight.uniform_(0.7, 1.3, generator=generator)
        if part.bias is not None:
            part.bias.normal_(0.0, 0.1, generator=generator)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(0.0, 0.1, generator=generator)
            assert part.running_var is not None
            part.running_var.uniform_(0.7, 1.3, generator=generator)


def settle(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Give BN the scale of its inputs where random weights go over `MAX_SCALE` or `MAX_GAIN`; else change nothing.

    Dozens of residuals, each of which triples the variance, take a network to 1e11; attention over values of 100
    decides by their last digits.
    """
    if not _wild(module, inputs):
        return
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(_take_scale) for norm in norms]
    with torch.no_grad():
        module(*inputs)
    for hook in hooks:
        hook.remove()


def calm(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Halve the weights of linear layers until a network that lost its norms is no longer over these bounds.

    At most `MAX_HALVINGS` times; what is still over them then fails the parity check.
    """
    for _ in range(MAX_HALVINGS):
        if not _wild(module, inputs):
            return
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(0.5)


def _wild(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Whether the output is over `MAX_SCALE`, or answers to a small change of the input by more than `MAX_GAIN`."""
    with torch.no_grad():
        outputs = module(*inputs)
        if not isinstance(outputs, Tensor):
            return False
        scale = outputs.abs().max()
        moved = (module(*(x + PERTURBATION * x.flip(-1) for x in inputs)) - outputs).abs().max()
    return not (scale <= MAX_SCALE and moved <= MAX_GAIN * PERTURBATION * scale)


def _take_scale(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
    """BN's statistics, drawn for inputs of unit scale, become those for inputs as large as these.

    One scale for all channels: one each would enlarge what is small by chance.
    """
    assert isinstance(norm, nn.BatchNorm2d)
    square = given[0].square().mean()
    if norm.running_mean is not None and norm.running_var is not None and square > 0:
        norm.running_mean.mul_(square.sqrt())
        norm.running_var.mul_(square)


def rows_in(path: Path, name: str) -> int | None:
    """Rows of a tensor of a safetensors file, its header alone read; None where it has none of that name.

    Raises:
        InvalidArtifactError: not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            return int(file.get_slice(name).get_shape()[0]) if name in file.keys() else None
    except (OSError, SafetensorError) as error:
        raise unreadable_weights(path, error) from error


def load_weights(module: nn.Module, path: Path, sha256: str) -> None:
    """Load a safetensors file that must have the digest and exactly the module's tensors.

    Raises:
        InvalidArtifactError: missing, too large, another digest, tensors that do not fit or are not finite.
    """
    tensors = read_weights(path, sha256)
    own = module.state_dict()
    tensors = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | tensors
    problem = misfit(own, tensors)
    if problem:
        raise InvalidArtifactError(f"{path}: {problem}; give the weights of this very network")
    module.load_state_dict(tensors)

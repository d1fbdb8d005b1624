"""Optimizers, weight averaging, mixed precision and frozen weights."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.overrides import TorchFunctionMode

from luts.format.errors import UsageError
from search.spaces.registry import is_timm
from search.supernet.model.elastic import Slice, disjoint
from search.supernet.model.supernet import Supernet
from search.supernet.model.weights_file import copy_into
from search.supernet.recipe.recipe import PrecisionName


class _GroupedConvolution(torch.autograd.Function):
    """`conv2d` of groups without a bias, forward in bf16, backward in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, *how: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x.bfloat16(), weight.bfloat16(), None, *how)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], False)
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            x.float(),
            weight.float(),
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            groups,
            wanted,
        )
        of_input = of_x.to(x.dtype) if wanted[0] else None
        return of_input, of_weight if wanted[1] else None, None, None, None, None


class GroupedGradients(TorchFunctionMode):
    """Within it gradients of grouped convolutions without a bias are computed in fp32."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace grouped convolutions in a forward pass that needs gradients."""
        if func is F.conv2d and not kwargs and len(args) == 7 and torch.is_grad_enabled():
            x, weight, bias, *how = args
            if how[3] > 1 and bias is None:
                return _GroupedConvolution.apply(x, weight, *how)
        return func(*args, **(kwargs or {}))


class Optimizer(ABC):
    """Moves the weights of a step's subnets; `parameters` are named."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        """Take the parameters that are trained."""
        self.parameters = dict(parameters)

    @abstractmethod
    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:
        """Update from the gradients; `slices` are those of the step's subnets, of one or of several."""

    @abstractmethod
    def state_tensors(self) -> dict[str, Tensor]:
        """Return the whole state under flat names, for a checkpoint."""

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the state by that of a checkpoint; raises InvalidArtifactError for another network's."""
        refusal = "optimizer state belongs to another supernet; train from the start"
        copy_into(self.state_tensors(), tensors, refusal)


class PlainSgd(Optimizer):
    """torch.optim.SGD on whole parameters; biases and norms (one dimension) are not decayed.

    Unlike `SlicedAdamW` it moves what the sampled subnets leave out of a parameter, by momentum and weight decay,
    as most published supernets were trained; parameters that no sampled subnet has a part of stand still.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], momentum: float, weight_decay: float, nesterov: bool
    ):
        """Start with zero momentum, which torch's first step turns into the gradient, as without one."""
        super().__init__(parameters)
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
        for parameter in self.parameters.values():
            zeros = torch.zeros_like(parameter, requires_grad=False)
            self._sgd.state[parameter]["momentum_buffer"] = zeros

    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:  # noqa: ARG002
        """Move all parameters that have gradients."""
        for group in self._sgd.param_groups:
            group["lr"] = learning_rate
        self._sgd.step()

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the momentum."""
        return {
            f"{name}:momentum": self._sgd.state[parameter]["momentum_buffer"]
            for name, parameter in self.parameters.items()
        }


CHUNK_ELEMENTS = 1 << 16
"""Of weights that are updated together; with gradient and state they take 1.6 MB."""

_STATE = ("exp_avg", "exp_avg_sq", "mass", "mass_sq")
"""Both moments, and the moments of a constant 1: after t updates 1 - beta^t, the bias correction."""


class SlicedAdamW(Optimizer):
    """Decoupled weight decay Adam (Loshchilov & Hutter 2019, Algorithm 2) on slices of parameters.

    Algorithm 1 of AutoViT freezes all weights but the sampled subnet's. A plain AdamW would still move them, by
    momentum and by weight decay, so here weights, moments and bias corrections are kept element by element and
    change within the given slices alone. With the largest subnet at every step it is torch.optim.AdamW.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
    ):
        """Start with zero moments."""
        super().__init__(parameters)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.state = {
            name: {key: torch.zeros_like(value, requires_grad=False) for key in _STATE}
            for name, value in self.parameters.items()
        }

    @torch.no_grad()
    def step(self, slices: Iterable[Slice], learning_rate: float) -> None:
        """Update the slices alone."""
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

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the moments and their bias corrections."""
        return {
            f"{name}:{key}": value for name, tensors in self.state.items() for key, value in tensors.items()
        }


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


class WeightAverage:
    """Exponential moving average, all weights at every step.

    A weight that the sampled subnets leave alone stands still, and its average goes on toward it.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float):
        """Start from a copy of the weights."""
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
        """Overwrite the averages by those of a checkpoint; raises InvalidArtifactError for another network's."""
        copy_into(self.tensors, tensors, "averaged weights belong to another supernet; train from the start")


_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

LEAST_SCALE = 1.0
"""A scale below it means that the gradients are too large with no scale at all: the run has diverged."""


def computes_in_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for it; a CPU without them is slower than in fp32."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


class Precision:
    """How forward and backward pass compute on a device; weights and optimizer stay fp32."""

    def __init__(self, name: PrecisionName, device: torch.device, parameters: Iterable[nn.Parameter]):
        """Set up the loss scale of fp16 for parameters on a device."""
        self.name, self.device = name, device
        self.param_groups = [{"params": list(parameters)}]
        self._scaler = GradScaler(device.type, enabled=name == "fp16")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Context of a forward pass."""
        slow = self.name == "bf16" and self.device.type == "cpu"
        cast = torch.autocast(self.device.type, _TYPES[self.name], enabled=self.name != "fp32")
        with cast, GroupedGradients() if slow else nullcontext():
            yield

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate, scaled for fp16."""
        return self._scaler.scale(loss)

    def unscale(self) -> None:
        """Make the gradients those of the loss itself."""
        self._scaler.unscale_(self)  # type: ignore[arg-type]

    def update(self, step: Callable[[], None]) -> None:
        """Call `step` unless the scale made a gradient overflow, and adapt the scale."""
        self.step = step
        self._scaler.step(self)  # type: ignore[arg-type]
        self._scaler.update()

    @property
    def scales(self) -> bool:
        """Whether an overflow may be the scale's fault, which the next step has smaller."""
        return self.name == "fp16" and self._scaler.get_scale() > LEAST_SCALE

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty without a scale."""
        return self._scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        if state:
            self._scaler.load_state_dict(state)


def frozen_parameters(supernet: Supernet, stages: int) -> frozenset[str]:
    """Return the names of the first stages' parameters; raises UsageError where networks may have fewer stages."""
    if not stages:
        return frozenset()
    groups = _stages(supernet)
    if stages > len(groups):
        raise UsageError(
            f"--freeze {stages}: {supernet.space.name} has networks of {len(groups)} stages; "
            f"freeze 0 to {len(groups)}",
            code="too_many_frozen_stages",
        )
    return frozenset(name for group in groups[:stages] for name in group)


def _stages(supernet: Supernet) -> list[list[str]]:
    """Return the parameters of each stage that all networks have; of timm's, of its groups but the classifier."""
    space = supernet.space
    names = [name for name, _ in supernet.named_parameters()]
    if not is_timm(space.name):
        stages = space.stages[: min(space.stage_counts)]
        return [[name for name in names if name.startswith(f"slots.{stage.name}_")] for stage in stages]
    from timm.models import group_parameters

    (slot,) = supernet.slots
    network: Any = supernet.slots[slot]
    groups = group_parameters(network, network.group_matcher(coarse=True))
    return [[f"slots.{slot}.{name}" for name in groups[index]] for index in sorted(groups)][:-1]

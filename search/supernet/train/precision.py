"""Mixed precision: autocast, and for fp16 a loss scale that keeps small gradients from vanishing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from search.supernet.recipe.recipe import PrecisionName
from search.supernet.train.depthwise import GroupedGradients

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
        """What to take the gradient of."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

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
        state: dict[str, Any] = self._scaler.state_dict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` gave."""
        if state:
            self._scaler.load_state_dict(state)

"""Parameters and both MAC counts of any torch module, counted while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Counts:
    """Trainable parameters, and multiply-accumulates at batch 1.

    Attributes:
        params: Trainable parameters.
        conv_linear_macs: Those of convolutions and linear layers, which most papers call FLOPs.
        all_macs: With the products of attention.
    """

    params: int
    conv_linear_macs: int
    all_macs: int


def count_module(module: nn.Module, inputs: Sequence[Tensor]) -> Counts:
    """Count an eval-mode module; fused attention counts as its two products."""
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    layers: list[int] = []

    def count(layer: nn.Conv2d | nn.Linear, _inputs: object, output: Tensor) -> None:
        channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
        layers.append(output.numel() * layer.weight.numel() // channels)

    with ExitStack() as hooks, torch.no_grad(), FlopCounterMode(display=False) as flops:
        hooks.enter_context(sdpa_kernel(SDPBackend.MATH))
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                hooks.enter_context(layer.register_forward_hook(count))
        module(*inputs)
    params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return Counts(params, sum(layers), flops.get_total_flops() // 2)

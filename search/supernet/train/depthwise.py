"""Grouped convolutions in bf16 on a CPU, whose gradients PyTorch computes many times faster in fp32.

In 2.14 the backward passes of depthwise convolutions in bf16 were three quarters of a step of a MobileNet-like
network on a processor with bf16 instructions; their forward passes, and all other operators, gain from bf16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


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
        if func is F.conv2d and not kwargs and len(args) == 7 and torch.is_grad_enabled():
            x, weight, bias, *how = args
            if how[3] > 1 and bias is None:
                return _GroupedConvolution.apply(x, weight, *how)
        return func(*args, **(kwargs or {}))

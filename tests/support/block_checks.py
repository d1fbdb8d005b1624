"""What every block must satisfy: its key, operations and supernet slices agree with its torch module."""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from search.blocks import BlockSpec, parse_key
from search.networks import build_block
from search.supernet.model.elastic import elastic_module, slices_of
from tests.support.live_tensors import peak_bytes

EXACT: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


def check_block(spec: BlockSpec) -> None:
    """Check key, shapes, operations, parameters, MACs and traffic of one block against its module."""
    assert parse_key(spec.key) == spec
    module, x = build_block(spec)
    module.eval()
    with FlopCounterMode(display=False) as flops, _LayerMacs(module) as layers, torch.no_grad():
        y = module(x)
    assert x.shape == spec.input_shape == spec.ops().input.shape
    assert y.shape == spec.output_shape
    assert y.isfinite().all()
    assert y.numel() == spec.out_elements == spec.ops().output.elements
    costs = spec.costs
    assert costs.params == sum(p.numel() for p in module.parameters())
    assert 2 * costs.total_macs == flops.get_total_flops()
    assert costs.conv_linear_macs == layers.total
    assert costs.depthwise_macs == layers.depthwise
    convolutions = [
        (op.kernel, op.stride, op.dilation, op.groups, op.output.shape)
        for op in spec.ops()
        if op.kind == "conv" and op.kernel > 1
    ]
    assert sorted(convolutions) == sorted(layers.convolutions)
    assert costs.traffic_elements >= x.numel() + y.numel()
    assert all(name in dict(module.named_modules()) for name in spec.branches)
    if spec.removable:
        assert spec.input_shape == spec.output_shape
        assert (spec.in_channels, spec.resolution) == (spec.out_channels, spec.out_resolution)


class _LayerMacs(TorchDispatchMode):
    """Counts MACs of convolutions and linear layers, those of depthwise ones; lists convolutions with a window."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.total = self.depthwise = 0
        self.convolutions: list[tuple] = []
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_hook(self._count)

    def _count(self, layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
        self.total += output.numel() * layer.weight.numel() // channels

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            x, weight, groups = args[0], args[1], args[8]
            if groups == x.shape[1] > 1:
                self.depthwise += out.numel() * weight.shape[2] * weight.shape[3]
            if weight.shape[2] > 1:
                geometry = (weight.shape[2], args[3][0], args[5][0], groups, tuple(out.shape))
                self.convolutions.append(geometry)
        return out


def check_elastic(small: BlockSpec, large: BlockSpec) -> None:
    """Check that the smaller block on slices of the larger one's weights equals the standalone block."""
    torch.manual_seed(0)
    supernet, (_, x) = elastic_module((large,)), build_block(small)
    weights = dict(supernet.named_parameters())
    static = elastic_module((small,))
    assert not list(static.buffers()), "a supernet has parameters only"
    parts = slices_of((small,), (large,), "")
    assert {part.name for part in parts} == {name for name, _ in static.named_parameters()}
    with torch.no_grad():
        for part in parts:
            static.get_parameter(part.name).copy_(part.take(weights[part.source]))
    x = x.repeat(2, *[1] * (x.ndim - 1))
    inside = functional_call(static, {part.name: part.take(weights[part.source]) for part in parts}, (x,))
    alone = static(x)
    torch.testing.assert_close(inside, alone, **EXACT)
    inside.square().sum().backward()
    alone.square().sum().backward()
    for part in parts:
        gradient = weights[part.source].grad
        torch.testing.assert_close(part.take(gradient), static.get_parameter(part.name).grad, **EXACT)
        part.region(gradient).zero_()
    assert all(w.grad is None or not w.grad.any() for w in weights.values()), "gradient outside the slices"


def check_kind(kind: type[BlockSpec]) -> None:
    """Check all examples of a kind; of an elastic kind also each smaller one as a subnet of the largest."""
    specs = [parse_key(key) for key in kind.examples]
    assert all(type(spec) is kind for spec in specs)
    for spec in specs:
        check_block(spec)
    assert 4 * specs[-1].live_elements() == peak_bytes(*build_block(specs[-1]))
    if kind.elastic:
        *smaller, largest = specs
        assert smaller, f"{kind.kind} is elastic: add an example that is a subnet of the last one"
        for spec in smaller:
            check_elastic(spec, largest)

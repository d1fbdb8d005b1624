"""What holds for every block, whatever it does: its keys and costs agree with its torch module."""

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
    """Key, parameters, MACs, traffic, shapes and removal of one block."""
    assert parse_key(spec.key) == spec
    module, x = build_block(spec)
    module.eval()
    assert sum(p.numel() for p in module.parameters()) == spec.params()
    assert x.shape == spec.input_shape
    layers = _conv_linear_macs(module)
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        y = module(x)
    assert sum(layers) == spec.macs().conv_linear
    assert depthwise_macs(module, x) == spec.depthwise_macs()
    assert flops.get_total_flops() == 2 * spec.macs().total
    assert y.shape == spec.output_shape
    assert y.isfinite().all()
    assert spec.out_elements == y.numel()
    assert spec.traffic_elements() >= x.numel() + y.numel()
    for name in spec.branches:
        assert module.get_submodule(name) is not module
    if spec.removable:
        assert spec.input_shape == spec.output_shape, f"nothing fits once {spec.key} is left out"
        assert (spec.in_channels, spec.resolution) == (spec.out_channels, spec.out_resolution)


def _conv_linear_macs(module: nn.Module) -> list[int]:
    """Filled as the module runs: MACs of each convolution and each linear layer."""
    found: list[int] = []

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        channels = output.shape[1] if isinstance(layer, nn.Conv2d) else output.shape[-1]
        found.append(output.numel() * layer.weight.numel() // channels)

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    return found


class _Depthwise(TorchDispatchMode):
    """Counts the MACs of convolutions that have one input channel a group, whoever calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and args[8] == args[0].shape[1] > 1:
            self.macs += out.numel() * args[1].shape[2] * args[1].shape[3]
        return out


def depthwise_macs(module: nn.Module, x: torch.Tensor) -> int:
    """MACs of a module's depthwise convolutions, counted as they run."""
    with torch.no_grad(), _Depthwise() as counted:
        module(x)
    return counted.macs


def check_elastic(small: BlockSpec, large: BlockSpec) -> None:
    """The smaller block on slices of the larger one's weights is the standalone block with a copy of them."""
    torch.manual_seed(0)
    supernet, (_, x) = elastic_module((large,)), build_block(small)
    weights = dict(supernet.named_parameters())
    static = elastic_module((small,))
    assert not list(static.buffers()), "a supernet keeps parameters alone"
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
    """All of a kind's examples, each against the largest too where it is elastic."""
    specs = [parse_key(key) for key in kind.examples]
    assert all(type(spec) is kind for spec in specs)
    for spec in specs:
        check_block(spec)
    assert 4 * specs[-1].live_elements() == peak_bytes(*build_block(specs[-1]))
    if kind.elastic:
        *smaller, largest = specs
        assert smaller, f"{kind.kind} is elastic: give an example that is part of the last one"
        for spec in smaller:
            check_elastic(spec, largest)

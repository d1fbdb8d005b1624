"""Checks of blocks against their modules, their peak memory, and random weights for them."""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from search.blocks import BlockSpec, parse_key
from search.networks import build_block
from search.supernet.model.elastic import elastic_module, slices_of

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
    if not parts:
        return
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
    assert 4 * specs[-1].costs.live_elements == peak_bytes(*build_block(specs[-1]))
    if kind.elastic:
        *smaller, largest = specs
        assert smaller, f"{kind.kind} is elastic: add an example that is a subnet of the last one"
        for spec in smaller:
            check_elastic(spec, largest)


IN_PLACE = {
    torch.ops.aten.batch_norm.default,
    torch.ops.aten.silu.default,
    torch.ops.aten.relu.default,
    torch.ops.aten.relu6.default,
    torch.ops.aten.hardtanh.default,
    torch.ops.aten.gelu.default,
    torch.ops.aten.hardswish.default,
    torch.ops.aten.prelu.default,
}


class _LiveTensors(torch.fx.Interpreter):
    """Runs a graph, forgets every value after its last use, and notes the most bytes of activations alive.

    What is made of weights alone is a constant of a deployed network, no activation.
    """

    def __init__(self, module):
        super().__init__(module)
        self.activations = set()
        for node in module.graph.nodes:
            if node.op == "placeholder" or self.activations & set(node.all_input_nodes):
                self.activations.add(node)
        weights = [*module.parameters(), *module.buffers()]
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.peak = 0

    def run_node(self, node):
        value = super().run_node(node)
        alive = {}
        replaced = node.args[0] if node.target in IN_PLACE else None
        for other, held in [*self.env.items(), (node, value)]:
            if other in self.activations and other is not replaced and isinstance(held, torch.Tensor):
                storage = held.untyped_storage()
                alive[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(alive[key] for key in alive.keys() - self.weights))
        return value


def peak_bytes(module, x):
    """The most bytes alive at once, input and output included."""
    module.eval()
    with torch.no_grad():
        live = _LiveTensors(torch.export.export(module, (x,)).module())
        live.run(x)
    return live.peak


def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with weights, biases and running statistics drawn around usual ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.7, 1.3, generator=generator)
            elif tensor.dim() > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(0.7, 1.3, generator=generator)
    return module

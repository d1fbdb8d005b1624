"""Peak activation memory from the architecture alone, against live tensors of the network as it runs."""

import random

import pytest
import torch

from search.blocks import FcHead, MBConv, parse_key, peak_activation_bytes
from search.networks import build_network
from search.spaces import get_arch, get_space

IN_PLACE = {torch.ops.aten.batch_norm.default, torch.ops.aten.silu.default}


class _LiveTensors(torch.fx.Interpreter):
    """Runs a graph, forgets every value after its last use, and notes the most bytes of activations alive."""

    def __init__(self, module):
        super().__init__(module)
        weights = [*module.parameters(), *module.buffers()]
        self.weights = {tensor.untyped_storage().data_ptr() for tensor in weights}
        self.peak = 0

    def run_node(self, node):
        value = super().run_node(node)
        alive = {}
        replaced = node.args[0] if node.target in IN_PLACE else None
        for other, held in [*self.env.items(), (node, value)]:
            if other is not replaced and isinstance(held, torch.Tensor):
                storage = held.untyped_storage()
                alive[storage.data_ptr()] = storage.nbytes()
        self.peak = max(self.peak, sum(alive[key] for key in alive.keys() - self.weights))
        return value


def _measured(arch):
    network = build_network(arch.blocks()).eval()
    with torch.no_grad():
        exported = torch.export.export(network, (network.example_input(),)).module()
        live = _LiveTensors(exported)
        live.run(network.example_input())
    return live.peak


NANO = get_space("autovit-nano")


@pytest.mark.parametrize(
    "arch",
    [
        NANO.sample(random.Random(0)),
        get_arch("autovit-xs-paper").with_resolution(224),
        get_space("autovit-xxs").sample(random.Random(5), (192,)),
    ],
    ids=lambda arch: f"{arch.space}-{arch.digest}",
)
def test_peak_is_what_a_run_keeps_alive(arch):
    assert peak_activation_bytes(arch.blocks()) == _measured(arch)


def test_peak_by_hand():
    """A depthwise block of stride 2 on 4 x 4 x 8: input 128 and depthwise output 32 elements, 4 bytes each."""
    block = MBConv(4, 8, 8, 3, 1, 2)
    assert peak_activation_bytes([block]) == 4 * (8 * 16 + 8 * 4)
    assert peak_activation_bytes([block, FcHead(2, 8, 1000)]) == 4 * 1008


def test_layers_run_beside_what_their_shell_holds():
    shell, layer = (
        parse_key("mvit.shell(c=8,d=8,patch=2)@8"),
        parse_key("mvit.layer(d=8,heads=2,head_dim=8,ratio=2,patch=2)@8"),
    )
    assert peak_activation_bytes([shell, layer]) == peak_activation_bytes([layer]) + 4 * 8 * 64

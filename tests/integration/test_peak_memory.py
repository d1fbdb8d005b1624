"""Peak activation memory from the architecture alone, against live tensors of the network as it runs."""

import random

import pytest

from search.blocks import FcHead, MBConv, parse_key, peak_activation_bytes
from search.networks import build_network
from search.spaces import get_arch, get_space
from tests.support.block_checks import peak_bytes

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
    network = build_network(arch.blocks())
    assert peak_activation_bytes(arch.blocks()) == peak_bytes(network, network.example_input())


def test_peak_by_hand():
    """A depthwise block of stride 2 on 4 x 4 x 8: input 128 and depthwise output 32 elements, 4 bytes each."""
    block = MBConv(4, 8, 8, 3, 1, 2)
    assert peak_activation_bytes([block]) == 4 * (8 * 16 + 8 * 4)
    assert peak_activation_bytes([block, FcHead(2, 8, 1000)]) == 4 * 1008


def test_layers_run_next_to_what_their_shell_holds():
    shell, layer = (
        parse_key("mvit.shell(c=8,d=8,patch=2)@8"),
        parse_key("mvit.layer(d=8,heads=2,head_dim=8,ratio=2,patch=2)@8"),
    )
    assert peak_activation_bytes([shell, layer]) == peak_activation_bytes([layer]) + 4 * 8 * 64

"""Published networks by name: their papers' sizes, and that they run."""

import pytest
import torch

from luts.format.errors import UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.lower.source import build_seeded
from orchestrator.tasks.networks import named_network
from search.blocks import check_chain, parse_keys
from search.networks import build_network
from search.spaces import list_archs, list_published

SIZES = {
    "shufflenetv2-1.0": (2.3, 2_278_604, 0.1, 0.1),
    "espnetv2": (2.3, 2_310_190, 0.2, 0.2),
    "t2t-vit-7": (4.3, 4_255_694, 1.0, 1.2),
    "localvit-t": (5.9, 5_908_696, 1.1, 1.3),
    "ceit-t": (6.4, 6_356_904, 1.2, 1.4),
}
"""Table 2's millions of parameters; ours, exactly; G conv+linear MACs and all MACs.

The counts are those of the authors' code (ShuffleNetV2's: torchvision's), of what is trained, but for ESPNetv2:
there the last strided unit holds 3,930 more weights for an image that it is never given.
"""


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_papers(name):
    network = named_network(name)
    millions, params, conv_linear, total = SIZES[name]
    assert network.params() == params
    assert round(params / 1e6, 1) == millions
    assert round(network.macs().conv_linear / 1e9, 1) == conv_linear
    assert round(network.macs().total / 1e9, 1) == total


def test_every_network_is_in_the_table():
    assert SIZES.keys() <= list_published().keys()
    assert not list_published().keys() & list_archs().keys()


def test_an_unknown_name_is_told_what_comes_close():
    with pytest.raises(UsageError, match="unknown network 'ceit-x'; did you mean ceit-t"):
        named_network("ceit-x")


@pytest.mark.parametrize("name", SIZES)
def test_keys_make_the_network(name):
    """What an export is told, the keys, is a chain, and its network has the parameters and gives the classes."""
    network = list_published()[name]
    assert parse_keys(ExportSpec(network.keys()).blocks) == network.blocks()
    check_chain(network.blocks())
    module = build_seeded(lambda: build_network(network.blocks()), 0)
    assert sum(p.numel() for p in module.parameters()) == network.params()
    with torch.no_grad():
        logits = module(module.example_input())
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()
    assert logits.std() > 0.01

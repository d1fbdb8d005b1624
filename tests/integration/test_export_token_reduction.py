"""Layers that reduce tokens lower to one delegate with nothing outside, and equal their gather forms."""

from unittest import mock

import pytest
import torch

from orchestrator.export.lower import quiet
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.quantize import quantized
from orchestrator.export.lower.rewrite import capture, rewritten
from orchestrator.export.lower.source import build_seeded
from orchestrator.tasks import blocks
from search.blocks import parse_key, parse_keys
from search.networks import build_network, module_of
from search.networks.vit import Comparison, one_hot, ranks
from search.spaces.plugins import load_plugin
from tests.support.own_code import own_code_forgotten
from tests.support.slow import mostly_slow

SHELL = ("conv(in=3,out=16,k=3,s=1)@4", "vit.shell(d=16)@4")
LAYERS = {
    "topk": ("k=9", "k=5", 10),
    "evit": ("k=9", "k=5", 11),
    "scored": ("k=9", "k=5", 10),
    "merger": ("k=9", "k=5", 10),
    "tome": ("r=4", "r=3", 13),
    "drop": ("r=4", "r=3", 13),
    "mlerp": ("r=4", "r=3", 13),
    "idle": ("k=9", "k=5", 17),
}
"""What the first and the second layer keep or merge, and the tokens between them."""


@pytest.mark.parametrize("kind", mostly_slow(LAYERS, kept=["tome"]))
def test_two_layers_are_one_delegate(kind):
    first, second, between = LAYERS[kind]
    keys = [f"vit.{kind}(d=16,heads=2,ratio=2,n={n},{k})@4" for n, k in ((17, first), (between, second))]
    network = build_seeded(
        lambda: build_network(parse_keys((*SHELL, *keys, "head.fc(in=16,classes=10)@1"))), 0
    )
    lowered = lower_to_executorch(network.eval(), (network.example_input(),))
    assert (lowered.delegates, lowered.operators) == (1, ())


@torch.no_grad()
def test_gather_forms_of_the_study_compute_the_same():
    before = blocks.block_names()
    with own_code_forgotten(), mock.patch.dict(blocks.OTHERS):
        load_plugin("tools/studies/gathered_tokens.py")
        assert set(blocks.block_names()) - set(before) == {"tome-gather", "evit-gather", "topk-gather"}
        for name in ("tome", "evit", "topk"):
            key, gathered = (
                blocks.OTHERS[form](blocks.Setting(64, 6, 8)) for form in (name, f"{name}-gather")
            )
            module, other = (
                build_seeded(lambda k=k: module_of(parse_key(k)), 0).eval() for k in (key, gathered)
            )
            x = torch.randn(2, 37, 64, generator=torch.Generator().manual_seed(0))
            torch.testing.assert_close(other(x), module(x), rtol=1e-4, atol=1e-5)


class Selection(torch.nn.Module):
    """Eight of sixteen numbers, the largest first."""

    def __init__(self):
        super().__init__()
        self.fc, self.compare = torch.nn.Linear(16, 16), Comparison()

    def forward(self, x):
        x = self.fc(x)
        return torch.bmm(one_hot(self.compare(ranks, x), 8), x.reshape(1, 16, 1))


@torch.no_grad()
def test_in_int8_no_two_tokens_get_one_place():
    """With comparisons of 8 bits some outputs are wrong by a quarter or more."""
    module = build_seeded(Selection, 0).eval()
    inputs = torch.randn(64, 1, 1, 16, generator=torch.Generator().manual_seed(0))
    with quiet():
        captured = capture(rewritten(module, "xnnpack"), (inputs[0],))
        int8 = quantized(captured, (inputs[0],))
    for x in inputs[:8]:
        expected = module(x)
        torch.testing.assert_close(int8(x), expected, rtol=0, atol=0.15 * float(expected.abs().max()))

"""Surgery on captured graphs: what is left computes, in the same shapes, and has nothing of the kind any more."""

import random
from typing import Any

import pytest
import timm
import torch
from torch import nn

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.removal import capture, census, groups, without
from orchestrator.export.lower.source import build_module
from search.spaces import get_space


def nano():
    space = get_space("autovit-nano")
    return build_module(ExportSpec(space.sample(random.Random(0)).keys()))


@pytest.mark.parametrize("kind", ["attention", "mlp", "convolution", "elementwise"])
def test_a_nano_network_without_a_kind(kind):
    module, inputs = nano()
    with torch.no_grad():
        left: Any = without(module, inputs, kind, "xnnpack")
        assert left(*inputs).shape == module(*inputs).shape
    assert kind not in {group.kind for group in groups(left.graph_module)}


def test_a_vit_of_timm_in_kinds():
    vit = timm.create_model("deit_tiny_patch16_224", img_size=32, depth=2).eval()
    found = census(vit, (torch.zeros(1, 3, 32, 32),), "xnnpack")
    parts = {kind: counts.parts for kind, counts in found.items()}
    assert (parts["attention"], parts["mlp"], parts["normalisation"]) == (2, 2, 5)
    assert parts["convolution"] == 1
    assert parts["elementwise"] == 5  # two residuals a block, and the position
    left = without(vit, (torch.zeros(1, 3, 32, 32),), "attention", "xnnpack")
    names = {str(node.target) for node in left.graph_module.graph.nodes}
    assert not {"aten.scaled_dot_product_attention.default", "aten.bmm.default"} & names
    assert "aten.gelu.default" in names


class Gated(nn.Module):
    """A convolution that widens, and a gate whose branch must not go with its product."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


def test_removal_replaces_convolutions_and_keeps_gates():
    inputs = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)
    module = Gated().eval()
    found = census(module, inputs, "xnnpack")
    assert (found["convolution"].parts, found["convolution"].removable) == (2, 2)
    assert (found["elementwise"].parts, found["elementwise"].removable) == (1, 0)
    with pytest.raises(UsageError, match="no elementwise"):
        without(module, inputs, "elementwise", "xnnpack")
    left = without(module, inputs, "convolution", "xnnpack")(*inputs)
    widened = torch.zeros(1, 8, 4, 4)
    widened[:, :3] = inputs[0][:, :, :4, :4]
    torch.testing.assert_close(left, widened * widened.mean((2, 3), keepdim=True).sigmoid())


def test_the_captured_graph_computes_what_the_module_does():
    module, inputs = nano()
    with torch.no_grad():
        torch.testing.assert_close(
            capture(module, inputs, "xnnpack")(*inputs), module(*inputs), rtol=1e-4, atol=1e-4
        )

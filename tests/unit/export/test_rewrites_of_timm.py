"""Every rewrite before lowering keeps what a network computes: networks of others, the smallest of their families.

In PyTorch alone, since lowering all of them takes half an hour.
"""

import pytest
import torch
from timm.models import _registry
from torch import nn

from orchestrator.export import ExportSpec
from orchestrator.export.lower.rewrite import capture, linear_layernorm
from orchestrator.export.lower.source import build_module
from search.networks.layers import fuse_for_inference
from tests.support.slow import mostly_slow
from tests.support.timm_families import NETWORKS

TOLERANCE = 1e-4
"""Of the output's scale: rounding alone gives up to 3e-6 here, a wrong rewrite about 1."""

KEPT = ["convnext_atto@64", "mobilenetv3_small_050@64", "mobilevitv2_050@64"]
"""In every run: each another kind of norm or mixer."""


def family(network: str) -> str:
    """Timm's file of it."""
    return _registry._model_to_module[network.partition("@")[0]]


def test_sixty_networks_of_thirty_families() -> None:
    assert len(set(NETWORKS)) >= 60
    assert len({family(network) for network in NETWORKS}) >= 30


@pytest.mark.parametrize("network", mostly_slow(NETWORKS, KEPT))
@torch.no_grad()
def test_every_rewrite_keeps_the_outputs(network: str) -> None:
    module, inputs = build_module(ExportSpec(module=f"timm:{network}"))
    expected = module(*inputs)
    scale = expected.abs().max()
    assert scale > 0
    rewritten: nn.Module = module
    for rewrite in (fuse_for_inference, linear_layernorm, lambda module: capture(module, inputs).module()):
        rewritten = rewrite(rewritten)
        error = (rewritten(*inputs) - expected).abs().max() / scale
        assert error < TOLERANCE, f"{rewrite} changes the output by {error:.2g} of its scale"

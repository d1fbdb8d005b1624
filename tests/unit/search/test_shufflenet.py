"""ShuffleNetV2 of our blocks against torchvision's."""

import torch
from torchvision.models import shufflenet_v2_x1_0

from orchestrator.export.lower.source import build_seeded
from search.networks import build_network
from search.networks.efficient_cnns import shuffle_channels
from search.spaces import list_published


def test_outputs_are_torchvisions_with_copied_weights():
    published = list_published()["shufflenetv2-1.0"]
    theirs = build_seeded(shufflenet_v2_x1_0, 1)
    ours = build_network(published.blocks()).eval()
    assert published.params() == sum(p.numel() for p in theirs.parameters()) == 2_278_604
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(x)
        scale = expected.abs().max().item()
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-5 * scale)


def test_macs_are_the_papers():
    """146 M in table 5, which counts pools too: 1 % more than convolutions and the linear layer."""
    macs = list_published()["shufflenetv2-1.0"].macs()
    assert macs.conv_linear == 144_907_992
    assert abs(macs.conv_linear / 146e6 - 1) < 0.01
    assert macs.total == macs.conv_linear


def test_channels_of_two_halves_alternate():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert shuffle_channels(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]

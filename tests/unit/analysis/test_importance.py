"""Taylor importance against the loss itself."""

import pytest
import torch
import torch.nn.functional as F

from search.analysis import ChannelImportance, kept_shares, relative_to_layer, taylor_importance
from search.blocks import parse_keys
from search.networks import build_network

NETWORK = parse_keys(
    (
        "conv(in=3,out=8,k=3,s=2)@16",
        "mvit.shell(c=8,d=12,patch=2)@8",
        "mvit.layer(d=12,heads=3,head_dim=4,ratio=2,patch=2)@8",
        "head.fc(in=8,classes=10)@8",
    )
)


def network_and_batch():
    torch.manual_seed(0)
    network = build_network(NETWORK).double()
    images, labels = torch.randn(8, 3, 16, 16).double(), torch.arange(8)
    network(images)
    return network, images, labels


@torch.no_grad()
def loss_with_scaled_channel(network, images, labels, layer, channel, scale):
    weight, bias = layer.weight[channel].clone(), layer.bias[channel].clone()
    layer.weight[channel] *= scale
    layer.bias[channel] *= scale
    loss = F.cross_entropy(network(images), labels)
    layer.weight[channel], layer.bias[channel] = weight, bias
    return loss.item()


def test_importance_is_the_slope_of_the_loss_towards_zeroing_a_channel():
    network, images, labels = network_and_batch()
    found = {one.role: one.values for one in taylor_importance(network, NETWORK, [(images, labels)])}
    qkv = network[1].layers[0].qkv
    for role, first in {"q": 0, "k": 12, "v": 24}.items():
        for channel in (0, 5, 11):
            more, less = (
                loss_with_scaled_channel(network, images, labels, qkv, first + channel, scale)
                for scale in (1 + 1e-4, 1 - 1e-4)
            )
            assert found[role][channel].item() == pytest.approx(abs(more - less) / 2e-4, rel=1e-4, abs=1e-10)


def test_importance_of_a_small_channel_is_what_zeroing_it_does():
    """V enters linearly enough, once it is small: the loss changes by the importance, up to second order."""
    network, images, labels = network_and_batch()
    qkv = network[1].layers[0].qkv
    with torch.no_grad():
        qkv.weight[24:] *= 1e-3
        qkv.bias[24:] *= 1e-3
    found = {one.role: one.values for one in taylor_importance(network, NETWORK, [(images, labels)])}
    whole = F.cross_entropy(network(images), labels).item()
    for channel in range(12):
        without = loss_with_scaled_channel(network, images, labels, qkv, 24 + channel, 0)
        assert found["v"][channel].item() == pytest.approx(abs(without - whole), rel=1e-2)


def test_query_and_key_of_plain_attention_are_equally_important():
    """Both stand in the product q k^T as factors: a gate on a channel of one is a gate on that of the other."""
    network, images, labels = network_and_batch()
    found = {one.role: one.values for one in taylor_importance(network, NETWORK, [(images, labels)])}
    torch.testing.assert_close(found["q"], found["k"])
    assert found["q"].min() > 0


def test_batches_are_averaged_and_gradients_dropped():
    network, images, labels = network_and_batch()
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    first, second, both = (
        taylor_importance(network, NETWORK, part) for part in (batches[:1], batches[1:], batches)
    )
    for one, other, mean in zip(first, second, both, strict=True):
        torch.testing.assert_close(mean.values, (one.values + other.values) / 2)
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(ValueError, match="at least one batch"):
        taylor_importance(network, NETWORK, [])


def test_shares_and_means_by_hand():
    found = [
        ChannelImportance(3, "a", "q", torch.tensor([1.0, 3.0])),
        ChannelImportance(3, "a", "v", torch.tensor([8.0, 4.0])),
        ChannelImportance(5, "b", "ffn", torch.tensor([5.0, 2.0, 0.5, 0.5])),
    ]
    assert relative_to_layer(found) == {(3, "q"): 0.5, (3, "v"): 1.5, (5, "ffn"): 1}
    assert kept_shares(found, 0.5) == {(3, "q"): 0.5, (3, "v"): 1, (5, "ffn"): 0.25}
    assert set(kept_shares(found, 1).values()) == {1}
    with pytest.raises(ValueError, match="above 0"):
        kept_shares(found, 0)

"""Gradients of grouped convolutions where the forward pass is in bf16."""

import pytest
import torch
from torch import nn

from search.supernet.train.optimizer import GroupedGradients, Precision


def gradients(network, images, context):
    network.zero_grad()
    images = images.clone().requires_grad_()
    with context:
        out = network(images)
    torch.autograd.backward(out.float().square().mean())
    return out.detach(), [images.grad, *(p.grad.clone() for p in network.parameters())]


@pytest.mark.parametrize(("stride", "kernel", "groups"), [(1, 3, 8), (2, 5, 8), (1, 3, 2)])
def test_they_are_those_of_fp32_up_to_the_rounding_of_bf16(stride, kernel, groups):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(8, 16, kernel, stride, kernel // 2, groups=groups, bias=False), nn.Conv2d(16, 4, 1)
    ).to(memory_format=torch.channels_last)
    images = torch.randn(4, 8, 9, 9)
    _, exact = gradients(network, images, torch.autocast("cpu", torch.bfloat16, enabled=False))
    cpu = Precision("bf16", torch.device("cpu"), network.parameters())
    out, found = gradients(network, images, cpu.autocast())
    assert out.dtype == torch.bfloat16
    for here, there in zip(found, exact, strict=True):
        assert here.dtype == torch.float32
        assert (here - there).norm() < 0.02 * there.norm()


def test_grouped_convolutions_without_a_bias_alone_are_taken(monkeypatch):
    taken = []

    def convolution(x, weight, *how):
        taken.append(how)
        return nn.functional.conv2d(x, weight, None, *how)

    monkeypatch.setattr(
        "search.supernet.train.optimizer._GroupedConvolution.apply",
        convolution,
    )
    x = torch.randn(2, 8, 5, 5)
    with GroupedGradients():
        nn.Conv2d(8, 8, 1)(x)
        nn.Conv2d(8, 8, 3, groups=8)(x)
        assert not taken
        nn.Conv2d(8, 8, 3, 1, 1, groups=4, bias=False)(x)
        assert taken == [((1, 1), (1, 1), (1, 1), 4)]
        with torch.no_grad():
            nn.Conv2d(8, 8, 3, groups=8, bias=False)(x)
    assert len(taken) == 1

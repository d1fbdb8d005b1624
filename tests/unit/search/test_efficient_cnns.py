"""ESPNetv2 against its formulas (Mehta et al. 2019, section 3), ShuffleNetV2 against torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.models import shufflenet_v2_x1_0

from orchestrator.export.lower.source import build_seeded
from search.blocks import parse_key
from search.blocks.efficient_cnns import dilations
from search.networks import build_block, build_network, module_of
from search.networks.efficient_cnns import StridedEesp, shuffle_channels
from search.networks.network import build_group
from search.spaces import list_published

EXACT: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def normed(x, bn):
    """BN at inference, written out."""
    weight, bias, mean, var = (
        t[None, :, None, None] for t in (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    )
    return (x - mean) / (var + bn.eps).sqrt() * weight + bias


def prelu(x, act):
    return torch.where(x > 0, x, act.weight[None, :, None, None] * x)


def grouped(x, conv):
    """A 1x1 convolution of four groups as four products."""
    weights = conv.weight[:, :, 0, 0].chunk(4)
    return torch.cat(
        [torch.einsum("oc,bchw->bohw", w, part) for w, part in zip(weights, x.chunk(4, 1), strict=True)], 1
    )


def pyramid_of(pyramid, x, stride):
    """Reduce, transform, each output with the sum of those before it, merge."""
    reduced = prelu(normed(grouped(x, pyramid.reduce.conv), pyramid.reduce.bn), pyramid.reduce.act)
    outputs = [
        F.conv2d(reduced, branch.weight, None, stride, dilation, dilation, groups=reduced.shape[1])
        for branch, dilation in zip(pyramid.branches, (1, 1, 2, 3), strict=True)
    ]
    fused = torch.cat([sum(outputs[: last + 1]) for last in range(4)], 1)
    fused = prelu(normed(fused, pyramid.fused[0]), pyramid.fused[1])
    return normed(grouped(fused, pyramid.expand.conv), pyramid.expand.bn)


@pytest.mark.parametrize(("largest", "expected"), [(4, (1, 2, 3, 4)), (3, (1, 1, 2, 3)), (2, (1, 1, 1, 2))])
def test_dilations_above_the_largest_fall_back_to_one(largest, expected):
    assert dilations(largest) == expected


def test_eesp_unit_is_the_papers_formula():
    unit = build_seeded(lambda: module_of(parse_key("espnet.eesp(c=16,dil=3)@9")), 1)
    x = drawn(2, 16, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(unit(x), prelu(pyramid_of(unit.pyramid, x, 1) + x, unit.act), **EXACT)


def test_strided_unit_concatenates_pool_and_pyramid():
    unit = build_seeded(lambda: StridedEesp(16, 32, 3, 3), 1)
    x, image = drawn(1, 16, 10, 10), drawn(1, 3, 5, 5)
    with torch.no_grad():
        pooled = F.avg_pool2d(x, 3, 2, padding=1)
        joined = torch.cat((pooled, pyramid_of(unit.pyramid, x, 2)), 1)
        first, second = unit.reinforce
        seen = prelu(normed(F.conv2d(image, first.conv.weight, padding=1), first.bn), first.act)
        seen = normed(F.conv2d(seen, second.conv.weight), second.bn)
        torch.testing.assert_close(unit(x, image), prelu(joined + seen, unit.act), **EXACT)


def test_the_trunk_pools_the_image_to_each_level():
    trunk, _ = build_block(parse_key("espnet.trunk(in=3,stem=16,c=32)@64"))
    image, seen = drawn(1, 3, 64, 64), []
    for unit in trunk.strided:
        unit.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    with torch.no_grad():
        trunk.eval()(image)
    pooled = [image]
    for _ in range(4):
        pooled.append(F.avg_pool2d(pooled[-1], 3, 2, padding=1))
    assert seen[3] is None
    for found, expected in zip(seen[:3], pooled[2:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_units_run_at_the_level_of_their_width():
    """3, 7 and 3 of them, at 28, 14 and 7 px (table 1)."""
    trunk: Any
    trunk, *units, _ = list_published()["espnetv2"].blocks()
    assert [unit.resolution for unit in units] == [28] * 3 + [14] * 7 + [7] * 3
    assert all(trunk.encloses(unit) for unit in units)
    assert not trunk.encloses(parse_key("espnet.eesp(c=192,dil=4)@14"))
    assert build_group((trunk, *units)).of_level == [[], [0, 1, 2], [3, 4, 5, 6, 7, 8, 9], [10, 11, 12]]


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

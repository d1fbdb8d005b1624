"""A subnet inside the supernet is the standalone network with the slices copied; slices share what they should."""

import dataclasses
import random

import pytest
import torch

from search.spaces import get_arch, get_space, list_spaces
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

SIDE = 64
"""Networks take any map; small ones keep the large spaces fast."""


def _supernet(name, seed=0):
    return Supernet(get_space(name).with_classes(10), seed)


def _samples(space, count):
    rng = random.Random(1)
    return [space.sample(rng) for _ in range(count)]


@pytest.mark.parametrize(("name", "count"), [("autovit-nano", 8), *((s.name, 2) for s in list_spaces()[1:])])
def test_subnet_equals_extracted_network_in_value_and_gradient(name, count):
    supernet = _supernet(name)
    for arch in _samples(supernet.space, count):
        network = supernet.extract(
            arch
        ).train()  # copies each slice into a parameter, which must have its shape
        side = arch.resolution if name.startswith(("vit", "metaformer")) else SIDE
        x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        inside, alone = supernet(x, arch), network(x)
        torch.testing.assert_close(inside, alone, rtol=1e-5, atol=1e-5)
        inside.square().sum().backward()
        alone.square().sum().backward()
        gradients = {name: p.grad for name, p in supernet.named_parameters()}
        standalone = dict(network.named_parameters())
        covered = set()
        for part in supernet.slices(arch):
            torch.testing.assert_close(part.take(gradients[part.source]), standalone[part.name].grad)
            part.region(gradients[part.source]).zero_()
            covered.add(part.name)
        assert covered == set(standalone)
        assert all(g is None or not g.any() for g in gradients.values()), "gradient outside the slices"
        supernet.zero_grad()


def test_largest_network_uses_every_weight_but_the_other_head():
    supernet = _supernet("autovit-nano")
    space = supernet.space
    rows = tuple(tuple(max(v) for _, v in stage.choices) for stage in space.stages)
    largest = dataclasses.replace(space.sample(random.Random(0)), stages=rows)
    assert sum(p.numel() for p in supernet.parameters()) == largest.params()


def _pair(supernet, position, **changes):
    """The largest nano architecture and one with some values of a stage changed."""
    space = supernet.space
    rows = [tuple(max(v) for _, v in stage.choices) for stage in space.stages]
    large = dataclasses.replace(space.sample(random.Random(0)), stages=tuple(rows))
    names = space.stages[position].names
    rows[position] = tuple(
        changes.get(name, value) for name, value in zip(names, rows[position], strict=True)
    )
    return large, dataclasses.replace(large, stages=tuple(rows))


def _zero(network, suffix, first, dim):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("4.") and name.endswith(suffix):
                parameter.narrow(dim, first, parameter.shape[dim] - first).zero_()


@pytest.mark.parametrize(
    ("changes", "suffix", "first"),
    [({"heads": 2}, "proj.weight", 2 * 16), ({"mlp_ratio": 1.5}, "fc2.weight", 72)],
)
def test_fewer_heads_or_hidden_units_are_the_first_ones(changes, suffix, first):
    """Cutting off the output of the last head (hidden units) leaves what the smaller subnet computes."""
    supernet = _supernet("autovit-nano")
    large, small = _pair(supernet, 2, **changes)
    network = supernet.extract(large).train()
    _zero(network, suffix, first, 1)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), supernet(x, small), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(supernet(x, large), supernet(x, small), atol=1e-3)


def test_less_depth_is_the_first_layers():
    supernet = _supernet("autovit-nano")
    large, small = _pair(supernet, 2, depth=1)
    network = supernet.extract(large).train()
    for suffix in ("layers.1.proj.weight", "layers.1.proj.bias", "layers.1.fc2.weight", "layers.1.fc2.bias"):
        _zero(network, suffix, 0, 0)
    x = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), supernet(x, small), rtol=1e-4, atol=1e-5)


def test_fusion_keeps_the_first_channels_of_both_its_inputs():
    supernet = _supernet("autovit-nano")
    _, narrow = _pair(supernet, 2, width=32)
    stored = dict(supernet.named_parameters())["slots.transformer1_1.fusion.conv.weight"]
    taken = dict(supernet.extract(narrow).named_parameters())["4.fusion.conv.weight"]
    assert torch.equal(taken, torch.cat((stored[:32, :32], stored[:32, 48 : 48 + 32]), 1))


def test_small_kernels_are_the_centre_of_large_ones():
    supernet = _supernet("autovit-xxs")
    paper = dataclasses.replace(get_arch("autovit-xxs-paper"), classes=10)
    stored = dict(supernet.named_parameters())["slots.mbconv1_0.depthwise.conv.weight"]
    taken = dict(supernet.extract(paper).named_parameters())["1.depthwise.conv.weight"]
    assert stored.shape[2:] == (5, 5)
    assert torch.equal(taken, stored[:16, :, 1:4, 1:4])


def test_exits_share_the_classifier():
    supernet = _supernet("autovit-nano")
    large, _ = _pair(supernet, 2)
    early = dataclasses.replace(large, stages=large.stages[:3])
    deep, shallow = (supernet.extract(arch) for arch in (large, early))
    assert torch.equal(deep[-1].fc.weight[:, :48], shallow[-1].fc.weight)


def test_initial_weights_follow_the_seed():
    first, again, other = (_supernet("autovit-nano", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_other_number_of_classes_is_refused():
    supernet = _supernet("autovit-nano")
    arch = dataclasses.replace(supernet.space.sample(random.Random(0)), classes=7)
    with raises("class_mismatch"):
        supernet(torch.randn(2, 3, 64, 64), arch)

"""Only the sampled subnet's weights and optimizer state change, and they change as in torch.optim.AdamW."""

import dataclasses
import random

import pytest
import torch

from search.spaces import get_space, list_spaces
from search.supernet.model.elastic import Slice, disjoint
from search.supernet.model.supernet import Supernet
from search.supernet.train.optimizer import SlicedAdamW
from tests.support.errors import raises


def _setup():
    supernet = Supernet(get_space("autovit-nano"), seed=3)
    return supernet, SlicedAdamW(dict(supernet.named_parameters()), weight_decay=0.1)


def _backward(supernet, arch, seed, side=64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, side, side, generator=generator)
    supernet.zero_grad()
    supernet(x, arch).square().mean().backward()


def _everything(supernet, optimizer):
    weights = {name: p.detach().clone() for name, p in supernet.named_parameters()}
    return weights | {name: value.clone() for name, value in optimizer.state_tensors().items()}


def _masks(supernet, archs):
    """Which elements of every parameter some of `archs` uses."""
    used = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in supernet.named_parameters()}
    for arch in archs:
        for part in supernet.slices(arch):
            part.region(used[part.source]).fill_(True)
    return used


@pytest.mark.parametrize("space_name", [space.name for space in list_spaces()])
def test_what_a_subnet_does_not_use_stays_bit_identical(space_name):
    supernet = Supernet(get_space(space_name).with_classes(4), seed=3)
    optimizer = SlicedAdamW(dict(supernet.named_parameters()), weight_decay=0.1)
    assert not list(supernet.buffers()), "no BN statistics that a step of another subnet could move"
    rng = random.Random(0)
    for step in range(2):
        arch = supernet.space.sample(rng)
        _backward(supernet, arch, step, side=32)
        before = _everything(supernet, optimizer)
        optimizer.step(supernet.slices(arch), 1e-2)
        after = _everything(supernet, optimizer)
        used = _masks(supernet, [arch])
        assert 0 < sum(int(mask.sum()) for mask in used.values()) == arch.params()
        for name, mask in used.items():
            for key in (name, *(f"{name}:{state}" for state in ("exp_avg", "exp_avg_sq", "mass", "mass_sq"))):
                moved = before[key] != after[key]
                assert not (moved & ~mask).any(), key
                if key.endswith("weight"):
                    assert (moved & mask).any() or not mask.any(), key
            mass = before[f"{name}:mass"]
            torch.testing.assert_close(after[f"{name}:mass"], torch.where(mask, 0.9 * mass + 0.1, mass))


def test_several_subnets_update_what_they_share_once():
    supernet, optimizer = _setup()
    rng = random.Random(5)
    archs = [supernet.space.sample(rng) for _ in range(4)]
    for step, arch in enumerate(archs):
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        supernet(x, arch).square().mean().backward()
    before = _everything(supernet, optimizer)
    optimizer.step((part for arch in archs for part in supernet.slices(arch)), 1e-2)
    after = _everything(supernet, optimizer)
    for name, mask in _masks(supernet, archs).items():
        masses = after[f"{name}:mass"]
        torch.testing.assert_close(masses, mask * 0.1)
        assert torch.equal(before[name][~mask], after[name][~mask])


def test_overlapping_slices_are_cut_apart():
    def box(*sides):
        return Slice("w", "w", tuple(b - a for a, b in sides), (6, 6), tuple(slice(*side) for side in sides))

    parts = disjoint([box((0, 4), (0, 2)), box((0, 2), (0, 4)), box((1, 3), (1, 3)), box((4, 6), (4, 6))])
    times = torch.zeros(6, 6)
    for part in parts:
        part.region(times).add_(1)
        assert part.region(times).shape == part.shape
    expected = torch.zeros(6, 6)
    expected[:4, :2] = expected[:2, :4] = expected[1:3, 1:3] = expected[4:, 4:] = 1
    assert torch.equal(times, expected)


def test_always_the_largest_subnet_is_torch_adamw():
    supernet, optimizer = _setup()
    twin, _ = _setup()
    rows = tuple(tuple(max(v) for _, v in stage.choices) for stage in supernet.space.stages)
    largest = dataclasses.replace(supernet.space.sample(random.Random(0)), stages=rows)
    matrices = [p for p in twin.parameters() if p.ndim > 1]
    vectors = [p for p in twin.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=1e-3)
    for step in range(5):
        _backward(supernet, largest, step)
        for mine, other in zip(supernet.parameters(), twin.parameters(), strict=True):
            other.grad = mine.grad.clone()
        optimizer.step(supernet.slices(largest), 1e-3)
        reference.step()
    for mine, other in zip(supernet.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_first_update_of_a_late_weight_has_full_bias_correction():
    """Element by element: the first step has size lr / (1 + eps), however late it comes."""
    parameter = torch.nn.Parameter(torch.zeros(4))
    optimizer = SlicedAdamW({"w": parameter}, weight_decay=0.0)
    half = Slice("w", "w", (2,), (4,), (slice(0, 2),))
    for _ in range(10):
        parameter.grad = torch.tensor([1.0, 1.0, 0.0, 0.0])
        optimizer.step([half], 0.1)
    parameter.grad = torch.ones(4)
    optimizer.step([dataclasses.replace(half, shape=(4,), index=(slice(0, 4),))], 0.1)
    assert parameter[3].item() == pytest.approx(-0.1, rel=1e-5)
    assert parameter[0].item() == pytest.approx(-1.1, rel=1e-5)


def test_state_of_another_network_is_refused():
    _, optimizer = _setup()
    state = optimizer.state_tensors()
    state.pop(next(iter(state)))
    with raises("weights_of_another_network"):
        optimizer.load_state_tensors(state)

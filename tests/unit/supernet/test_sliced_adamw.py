"""Only the sampled subnet's weights and optimizer state change, and they change as in torch.optim.AdamW."""

import dataclasses
import random

import pytest
import torch

from luts.errors import InvalidArtifactError
from search.spaces import get_space
from search.supernet.elastic import Slice
from search.supernet.optimizer import SlicedAdamW
from search.supernet.supernet import Supernet


def _setup():
    supernet = Supernet(get_space("autovit-nano"), seed=3)
    return supernet, SlicedAdamW(dict(supernet.named_parameters()), weight_decay=0.1)


def _backward(supernet, arch, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 3, 64, 64, generator=generator)
    supernet.zero_grad()
    supernet(x, arch).square().mean().backward()


def _everything(supernet, optimizer):
    weights = {name: p.detach().clone() for name, p in supernet.named_parameters()}
    return weights | {name: value.clone() for name, value in optimizer.state_tensors().items()}


def test_what_a_subnet_does_not_use_stays_bit_identical():
    supernet, optimizer = _setup()
    rng = random.Random(0)
    for step in range(4):
        arch = supernet.space.sample(rng)
        _backward(supernet, arch, step)
        before = _everything(supernet, optimizer)
        optimizer.step(supernet.slices(arch), 1e-2)
        after = _everything(supernet, optimizer)
        used = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in supernet.named_parameters()}
        for part in supernet.slices(arch):
            part.region(used[part.source]).fill_(True)
        assert 0 < sum(int(mask.sum()) for mask in used.values()) == arch.params()
        for name, mask in used.items():
            for key in (name, *(f"{name}:{state}" for state in ("exp_avg", "exp_avg_sq", "mass", "mass_sq"))):
                assert torch.equal(before[key][~mask], after[key][~mask]), key
            grown = 0.9 * before[f"{name}:mass"][mask] + 0.1
            torch.testing.assert_close(after[f"{name}:mass"][mask], grown)
            if name.endswith("weight"):
                assert not torch.equal(before[name][mask], after[name][mask]) or not mask.any()


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
    with pytest.raises(InvalidArtifactError, match="another supernet"):
        optimizer.load_state_tensors(state)

"""Sliced AdamW, plain SGD, and gradients of grouped convolutions where the forward pass is in bf16."""

import dataclasses
import random
from typing import Any

import pytest
import torch
from torch import nn

from search.spaces import get_space, list_spaces
from search.supernet.model.elastic import Slice, disjoint
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.recipe import Augmentation, Recipe
from search.supernet.train.checkpoint import read_info
from search.supernet.train.optimizer import GroupedGradients, PlainSgd, Precision, SlicedAdamW
from tests.support.errors import raises
from tests.support.slow import mostly_slow
from tests.support.training import cut_off, same_weights, supernet_trainer


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


@pytest.mark.parametrize(
    "space_name",
    mostly_slow([space.name for space in list_spaces()], kept=["autovit-nano", "nasbench-macro"]),
)
def test_what_a_subnet_does_not_use_stays_bit_identical(space_name):
    supernet = Supernet(get_space(space_name).with_classes(4), seed=3)
    optimizer = SlicedAdamW(dict(supernet.named_parameters()), weight_decay=0.1)
    assert not list(supernet.buffers()), "no BN statistics that a step of another subnet could move"
    rng = random.Random(0)
    for step in range(2):
        arch = supernet.space.sample(rng)
        own_side = space_name.startswith(("vit", "metaformer"))
        _backward(supernet, arch, step, side=arch.resolution if own_side else 32)
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


SPACE = get_space("autovit-nano")
RECIPE = Recipe(
    name="sgd",
    epochs=2,
    batch_size=16,
    optimizer="sgd",
    schedule="one-cycle",
    learning_rate=0.1,
    warmup_epochs=0.5,
    weight_decay=5e-4,
    agc=0.1,
    augmentation=Augmentation(rand_augment="original"),
)


def test_it_is_torch_with_decayed_weights_and_bare_biases():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    sgd = PlainSgd(dict(ours.named_parameters()), 0.9, 0.1, nesterov=True)
    groups: list[dict[str, Any]] = [
        {"params": [theirs.weight], "weight_decay": 0.1},
        {"params": [theirs.bias]},
    ]
    torchs = torch.optim.SGD(groups, lr=0.5, momentum=0.9, nesterov=True)
    for _ in range(3):
        x = torch.randn(4, 3)
        for net in (ours, theirs):
            net.zero_grad()
            net(x).square().sum().backward()
        sgd.step((), 0.05)
        for group in torchs.param_groups:
            group["lr"] = 0.05
        torchs.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)
    with raises("weights_of_another_network"):
        sgd.load_state_tensors({"weight:momentum": torch.zeros(1)})


def test_a_run_goes_on_bit_by_bit(small, tmp_path):
    """Parameters that no subnet has touched before the stop have no momentum yet."""
    whole = supernet_trainer(SPACE, small, RECIPE, tmp_path / "whole")
    finished = whole.run()

    cut_off(supernet_trainer(SPACE, small, RECIPE, tmp_path / "cut"), step=3)
    assert read_info(tmp_path / "cut").step == 2
    second = supernet_trainer(SPACE, small, RECIPE, tmp_path / "cut")
    assert second.run() == finished
    assert same_weights(whole.task.model, second.task.model)


def test_gradients_are_clipped_by_the_weights_they_belong_to(small):
    arch = SPACE.sample(random.Random(3))
    recipe = RECIPE.model_copy(update={"arch": arch.to_json(), "agc": 1e-6, "clip_norm": 0.0})
    moved = {}
    for agc in (0.0, 1e-6):
        trainer = supernet_trainer(SPACE, small, recipe.model_copy(update={"agc": agc}), None)
        before = [p.detach().clone() for p in trainer.task.model.parameters()]
        trainer.train_step()
        now = trainer.task.model.parameters()
        moved[agc] = sum(float((a - b).detach().abs().sum()) for a, b in zip(before, now, strict=True))
    assert moved[1e-6] < 0.1 * moved[0.0]


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

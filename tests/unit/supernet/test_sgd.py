"""Plain SGD in one cycle: what torch does with the same gradients, and runs that go on bit by bit."""

import random
from typing import Any

import torch

from search.spaces import get_space
from search.supernet.recipe.recipe import Augmentation, Recipe
from search.supernet.train.checkpoint import read_info
from search.supernet.train.optimizer import PlainSgd
from tests.support.errors import raises
from tests.support.training import cut_off, same_weights, supernet_trainer

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

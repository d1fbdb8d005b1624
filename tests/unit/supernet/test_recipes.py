"""Recipes as files, what they say of the paper, and the steps that follow from them."""

import itertools

import numpy as np
import pytest
import torch

from search.spaces import get_space
from search.supernet.recipe.recipe import (
    Augmentation,
    Recipe,
    changed,
    get_recipe,
    recipe_names,
    resolutions_of,
)
from search.supernet.recipe.schedule import TrainingSchedule
from tests.support.errors import raises

BASE = Recipe(name="r", epochs=2, batch_size=8, learning_rate=1e-3)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_whole_and_survives_json(name):
    recipe = get_recipe(name)
    assert recipe.name == name
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_recipe_of_the_paper():
    """AutoViT section 4.1 and DeiT's Table 9; three supernets with Table 1's ranges, 1.8 meaning below 1.85."""
    recipe = get_recipe("imagenet")
    assert (recipe.epochs, recipe.warmup_epochs, recipe.weight_decay) == (500, 5, 0.05)
    assert recipe.learning_rate == pytest.approx(5e-4 * recipe.batch_size / 512)
    assert (recipe.label_smoothing, recipe.ema_decay) == (0.1, 0.99996)
    assert (recipe.drop_path, recipe.warmup_learning_rate) == (0.1, 1e-6)
    how = recipe.augmentation
    assert (how.rand_augment, how.mixup, how.cutmix, how.erase) == ("rand-m9-mstd0.5-inc1", 0.8, 1.0, 0.25)
    ranges = {"xxs": (1.0, 1.8), "xs": (1.6, 2.6), "s": (4.0, 7.2)}
    for name, (low, high) in ranges.items():
        one = get_recipe(f"imagenet-{name}")
        assert one.params_range == (low * 1e6, high * 1e6 + 49_999)
        assert one.model_copy(update={"name": "imagenet", "params_range": None}) == recipe
        assert resolutions_of(one, get_space(f"autovit-{name}")) == (256,)


def test_recipes_of_other_papers():
    """facebookresearch/deit main.py, apple/ml-cvnets mobilevit.yaml, microsoft/Cream EfficientViT main.py."""
    deit, mobilevit, efficientvit = map(get_recipe, ("deit", "mobilevit", "efficientvit"))
    imagenet = get_recipe("imagenet")
    assert deit == imagenet.model_copy(update={"name": "deit", "epochs": 300})
    assert (mobilevit.epochs, mobilevit.batch_size, mobilevit.weight_decay) == (300, 1024, 0.01)
    assert (mobilevit.warmup_learning_rate, mobilevit.learning_rate) == (2e-4, 2e-3)
    assert (mobilevit.min_learning_rate, mobilevit.label_smoothing) == (2e-4, 0.1)
    assert mobilevit.ema_decay == pytest.approx(1 - 0.0005)
    assert mobilevit.multi_scale == "drawn"
    assert mobilevit.warmup_epochs * 1_281_167 / 1024 == pytest.approx(3000, rel=0.01)
    assert mobilevit.augmentation == Augmentation(crop="resized")
    assert efficientvit.augmentation == imagenet.augmentation
    assert efficientvit.learning_rate == pytest.approx(1e-3 * efficientvit.batch_size / 512)
    assert (efficientvit.agc, efficientvit.weight_decay, efficientvit.drop_path) == (0.02, 0.025, 0)


def test_one_cycle_is_that_of_torch_at_every_step():
    recipe = get_recipe("one-cycle").model_copy(update={"epochs": 2, "warmup_epochs": 0.6})
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.1, total_steps=20, pct_start=0.3, cycle_momentum=False
    )
    expected = []
    for _ in range(19):
        expected += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert [recipe.learning_rate_at(step, 10) for step in range(19)] == pytest.approx(expected, rel=1e-12)
    flat = recipe.model_copy(
        update={"warmup_epochs": 5, "warmup_learning_rate": 0.02, "min_learning_rate": 0.01}
    )
    assert flat.learning_rate_at(0, 10) == pytest.approx(0.02)
    assert flat.learning_rate_at(19, 10) == pytest.approx(0.1)
    short = recipe.model_copy(update={"warmup_epochs": 0.1})
    assert 0.09 < short.learning_rate_at(0, 10) < 0.1


def test_warm_up_grows_in_equal_steps_from_its_first_learning_rate():
    recipe = BASE.model_copy(update={"warmup_epochs": 0.9, "warmup_learning_rate": 1e-4})
    rates = [recipe.learning_rate_at(step, 10) for step in range(9)]
    assert rates == pytest.approx([1e-4 + 0.9e-4 * (step + 1) for step in range(9)])
    assert recipe.learning_rate_at(9, 10) == recipe.learning_rate


def test_own_file_extends_a_recipe_table_by_table(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "imagenet"\nepochs = 3\n[augmentation]\nerase = 0.5\n')
    recipe = get_recipe(str(path))
    assert (recipe.name, recipe.epochs, recipe.batch_size) == ("mine", 3, 1024)
    assert (recipe.augmentation.erase, recipe.augmentation.mixup) == (0.5, 0.8)


@pytest.mark.parametrize(
    "text",
    [
        "epochs = ",
        'extends = "demo"\nepoch = 3',
        'extends = "demo"\nepochs = 0',
        'extends = "demo"\nwarmup_epochs = inf',
        'extends = "demo"\nmicro_batches = 3',
        'extends = "demo"\nbatch_size = 6\nmicro_batches = 2\naugmentation.mixup = 1',
        'extends = "demo"\naugmentation.rand_augment = "rand"\naugmentation.crop = "x"',
        'extends = "{self}"',
        'extends = "demo"\nstage_counts = [3, 4]\nstage_weights = [1.0]',
        'extends = "demo"\nparams_weights = [1.0]',
        'extends = "demo"\nnesterov = true\nmomentum = 0',
        'extends = "demo"\naugmentation.rand_augment = "own"',
        'extends = "demo"\nparams_range = [2, 1]',
        'extends = "demo"\nlearning_rate = 5e-324\nschedule = "one-cycle"',
        "x = " + 10_000 * "[",
    ],
)
def test_bad_files_are_refused(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("{self}", str(path)))
    with raises("invalid_recipe"):
        get_recipe(str(path))


def test_a_file_that_is_too_large_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_text("x = 1" + 70_000 * " ")
    with raises("file_too_large"):
        get_recipe(str(tmp_path / "mine.toml"))


def test_options_change_a_recipe_within_its_rules():
    assert changed(BASE, {"epochs": 5, "seed": None}, {"alpha": 0.2}).distillation.alpha == 0.2
    for options, taught in (({"precision": "int8"}, {}), ({"micro_batches": 5}, {}), ({}, {"kind": "loud"})):
        with raises("invalid_recipe"):
            changed(BASE, options, taught)
    with raises("unreadable_file"):
        get_recipe("/nowhere/mine.toml")


def test_epoch_visits_every_image_once():
    for parts in (1, 4):
        recipe = BASE.model_copy(update={"micro_batches": parts})
        schedule = TrainingSchedule(recipe, np.arange(100, 153), (64,))
        assert (schedule.steps_per_epoch, schedule.steps) == (6, 12)
        epochs = []
        for epoch in range(2):
            steps = range(6 * epoch, 6 * epoch + 6)
            seen = [schedule.part(step, part).indices for step in steps for part in range(parts)]
            epochs.append(np.concatenate(seen))
            assert len(set(epochs[-1])) == len(epochs[-1]) == 48
        assert list(epochs[0]) != list(epochs[1])
        if parts == 1:
            whole = epochs
    assert all(np.array_equal(a, b) for a, b in zip(whole, epochs, strict=True))


def test_multi_scale_batches_have_as_many_pixels():
    recipe = BASE.model_copy(update={"multi_scale": True})
    schedule = TrainingSchedule(recipe, np.arange(1000), (128, 256, 192))
    assert schedule.sizes == {256: 8, 192: 14, 128: 32}
    rounds = 1000 // (8 + 14 + 32)
    assert schedule.steps_per_epoch == 3 * rounds
    for epoch in range(2):
        parts = [schedule.part(step, 0) for step in range(3 * rounds * epoch, 3 * rounds * (epoch + 1))]
        drawn = [part.resolution for part in parts]
        assert all(drawn.count(resolution) == rounds for resolution in (128, 192, 256))
        assert drawn != sorted(drawn)
        assert all(len(part.indices) == schedule.sizes[part.resolution] for part in parts)
        seen = np.concatenate([part.indices for part in parts])
        assert len(set(seen)) == len(seen) == 54 * rounds
    with raises("batch_too_large"):
        TrainingSchedule(recipe, np.arange(50), (128, 192, 256))


def test_drawn_resolutions_are_those_of_the_papers_sampler():
    """A resolution a step whatever came before, as many pixels in each batch, and passes without gaps."""
    recipe = BASE.model_copy(update={"multi_scale": "drawn", "epochs": 20})
    sides = (160, 192, 256, 288, 320)
    schedule = TrainingSchedule(recipe, np.arange(1000), sides)
    assert schedule.sizes == {320: 8, 288: 8, 256: 12, 192: 22, 160: 32}
    assert schedule.steps_per_epoch == 1000 * 5 // (8 + 8 + 12 + 22 + 32)
    parts = [schedule.part(step, 0) for step in range(schedule.steps)]
    drawn = [part.resolution for part in parts]
    assert all(len(part.indices) == schedule.sizes[part.resolution] for part in parts)
    expected, spread = len(drawn) / 5, (len(drawn) * 0.2 * 0.8) ** 0.5
    assert all(abs(drawn.count(side) - expected) < 4 * spread for side in sides)
    first = [drawn[: schedule.steps_per_epoch].count(side) for side in sides]
    assert len(set(first)) > 1, "drawn, not dealt out"
    again = sum(a == b for a, b in itertools.pairwise(drawn)) / (len(drawn) - 1)
    assert 0.15 < again < 0.25, "what came before does not matter"
    seen = np.concatenate([part.indices for part in parts])
    for begin in range(0, len(seen) - 999, 1000):
        assert len(set(seen[begin : begin + 1000])) == 1000
    late = TrainingSchedule(recipe, np.arange(1000), sides).part(schedule.steps - 1, 0)
    assert np.array_equal(late.indices, parts[-1].indices), "a run that goes on gets the same"


def test_resolutions_of_the_space_are_all_drawn():
    space = get_space("autovit-xxs")
    recipe = BASE.model_copy(update={"resolutions": "space"})
    schedule = TrainingSchedule(recipe, np.arange(1000), resolutions_of(recipe, space))
    assert {schedule.resolution(step) for step in range(100)} == set(space.resolutions)

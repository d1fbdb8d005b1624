"""Supernets with a head for each number of stages: slots, what a step trains, weights that start other runs."""

import random

import pytest
import torch
from pydantic import ValidationError

from search.spaces import get_space
from search.supernet.model.supernet import Supernet
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.samplers import get_sampler
from search.supernet.recipe.terms import InPlace, Labels
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.init_weights import InitialWeights
from tests.support.errors import raises
from tests.support.training import TINY, supernet_trainer

SPACE = get_space("autovit-nano").with_classes(10)
XXS = get_space("autovit-xxs")
RECIPE = TINY.model_copy(update={"sampler": "exits"})
X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def deepest(seed=0):
    return SPACE.sample(random.Random(seed), stage_counts=(4,))


def test_exits_are_the_first_stages_of_each_smaller_number():
    """AutoViT-XXS has 7 to 9 stages."""
    arch = XXS.sample(random.Random(0), stage_counts=(9,))
    exits = XXS.exits(arch)
    assert [each.stages for each in exits] == [arch.stages[:7], arch.stages[:8]]
    assert XXS.exits(exits[0]) == ()
    for each in exits:
        assert (*each.blocks()[:-1], *arch.after_exit(each)) == arch.blocks()
        XXS.check(each)


def test_each_number_of_stages_has_a_head_of_its_widest_map():
    supernet = Supernet(SPACE, own_heads=True)
    heads = {name: slot for name, slot in supernet.slots.items() if name.startswith("head_")}
    widths = {name: max(p.shape[1] for p in slot.parameters() if p.ndim == 2) for name, slot in heads.items()}
    assert widths == {"head_fc_3": 48, "head_fc_4": 64}
    assert "head_fc" in Supernet(SPACE).slots


@torch.no_grad()
def test_a_head_serves_its_exit_alone():
    supernet, arch = Supernet(SPACE, own_heads=True), deepest()
    (early,) = SPACE.exits(arch)
    before = supernet(X, early), supernet(X, arch)
    for parameter in supernet.slots["head_fc_3"].parameters():
        parameter.add_(1.0)
    assert not torch.equal(supernet(X, early), before[0])
    assert torch.equal(supernet(X, arch), before[1])
    names = {part.source.split(".")[1] for part in supernet.slices(early)}
    assert "head_fc_3" in names
    assert "head_fc_4" not in names
    supernet.extract(early)


def test_a_step_trains_the_whole_subnet_first_and_its_exits():
    sampler = get_sampler("exits", XXS)
    for seed in range(20):
        whole, *exits = sampler.draw(random.Random(seed), 256)
        assert [len(each.stages) for each in (whole, *exits)] == [9, 8, 7]
        assert all(each.stages == whole.stages[: len(each.stages)] for each in exits)
        assert {each.resolution for each in (whole, *exits)} == {256}
    assert sampler.in_place


def test_a_space_without_exits_is_refused():
    with raises("no_exits") as caught:
        get_sampler("exits", get_space("mobilevit"))
    assert "mobilevit has no exits" in str(caught.value)
    with pytest.raises(ValidationError, match="leave stage_weights, params_range out"):
        Recipe.model_validate(RECIPE.model_dump() | {"params_range": (1, 2)})


def test_exits_learn_from_the_whole_network_and_from_labels_where_terms_say_so(small, tmp_path):
    """The exit's loss is the cross-entropy with the last exit's distribution, plus that of the labels."""
    terms = {"kind": "terms", "terms": (Labels(kind="labels"), InPlace(kind="in-place", weight=0.5))}
    recipe = Recipe.model_validate(RECIPE.model_dump() | {"distillation": terms, "label_smoothing": 0.0})
    task = supernet_trainer(SPACE, small, recipe, tmp_path).task
    task.start_step(0)
    images, labels = next(iter(task.batches(range(1))))
    whole, early = task.archs
    with torch.no_grad():
        last, first = task.model(images, whole), task.model(images, early)
        losses = [float(each.value) * recipe.micro_batches for each in task.losses(0, 0, (images, labels))]
    from_labels = [float(-x.log_softmax(1)[torch.arange(len(labels)), labels].mean()) for x in (last, first)]
    from_last = float(-(last.softmax(1) * first.log_softmax(1)).sum(1).mean())
    assert losses == pytest.approx([from_labels[0], from_labels[1] + 0.5 * from_last], rel=1e-4)


def test_a_trained_supernet_with_exits_is_read_again(small, tmp_path):
    supernet_trainer(SPACE, small, RECIPE, tmp_path).run()
    supernet, info = load_supernet(tmp_path)
    assert supernet.own_heads
    assert info.scope.stage_counts == (3, 4)


def test_exits_start_from_a_shared_head_and_one_network_from_its_own(small, tmp_path):
    supernet_trainer(SPACE, small, TINY, tmp_path / "shared").run()
    shared, _ = load_supernet(tmp_path / "shared")
    started = supernet_trainer(
        SPACE, small, RECIPE, tmp_path / "exits", initial=InitialWeights(f"supernet:{tmp_path / 'shared'}")
    ).task.model
    arch = deepest()
    with torch.no_grad():
        for each in (arch, *SPACE.exits(arch)):
            assert torch.equal(started(X, each), shared(X, each))
    supernet_trainer(SPACE, small, RECIPE, tmp_path / "exits").run()
    exits, _ = load_supernet(tmp_path / "exits")
    for each in (arch, *SPACE.exits(arch)):
        alone = TINY.model_copy(update={"arch": each.to_json()})
        start = InitialWeights(f"supernet:{tmp_path / 'exits'}")
        model = supernet_trainer(
            SPACE, small, alone, tmp_path / str(len(each.stages)), initial=start
        ).task.model
        with torch.no_grad():
            assert torch.equal(model(X, each), exits(X, each))

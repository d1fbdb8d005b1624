"""Training that goes on from weights: what is taken over, what is new, what stands still, and what is refused."""

import dataclasses
import random

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from orchestrator.cli.main import app
from search.networks import build_network
from search.spaces import get_space
from search.supernet.data.images import ImageData
from search.supernet.train.checkpoint import load_supernet, read_info
from search.supernet.train.init_weights import InitialWeights, classifier_parameters
from tests.support.errors import raises
from tests.support.training import TINY, cut_off, same_weights, supernet_trainer

SPACE = get_space("autovit-nano")
ARCH, OTHER = (SPACE.sample(random.Random(seed)).with_classes(10) for seed in (3, 4))
RECIPE = TINY.model_copy(update={"ema_decay": 0.9})
ALONE = RECIPE.model_copy(update={"arch": ARCH.to_json()})


@pytest.fixture(scope="module")
def letters(small):
    """The same images under other names, the last class left out."""
    source = small.source
    nine = source.labels < 9
    picked = nine.nonzero()[0]
    data = ImageData(
        dataclasses.replace(
            source,
            name="letters",
            classes=tuple("abcdefghi"),
            labels=source.labels[nine],
            image=lambda index: source.image(int(picked[index])),
            digest="0" * 64,
        )
    )
    data.split = dataclasses.replace(data.split, train=data.split.train[:32], search=data.split.search[:16])
    return data


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """A whole supernet's folder."""
    folder = tmp_path_factory.mktemp("supernet")
    supernet_trainer(SPACE, small, RECIPE, folder).run()
    return folder


def weights_of(supernet):
    return {name: value.detach().clone() for name, value in supernet.named_parameters()}


def test_a_run_begins_with_what_subnets_inherit(small, trained, tmp_path):
    given, info = load_supernet(trained)
    trainer = supernet_trainer(SPACE, small, ALONE, tmp_path, initial=InitialWeights(f"supernet:{trained}"))
    assert same_weights(trainer.task.model, given)
    average = trainer.task.average.tensors
    assert all(torch.equal(average[name], value) for name, value in given.named_parameters())
    done = trainer.run()
    assert (done.init, done.init_sha256) == (f"supernet:{trained}", info.weights_sha256)


def test_a_new_classifier_begins_at_zero_and_all_else_is_taken_over(letters, trained, tmp_path):
    given = weights_of(load_supernet(trained)[0])
    trainer = supernet_trainer(
        SPACE, letters, ALONE, tmp_path, initial=InitialWeights(f"supernet:{trained}", classes=9)
    )
    classifier = classifier_parameters(trainer.task.model)
    assert {name.rpartition(".")[2] for name in classifier} == {"weight", "bias"}
    for name, value in trainer.task.model.named_parameters():
        assert torch.equal(value, torch.zeros_like(value) if name in classifier else given[name])
    assert trainer.run().classes == letters.source.classes


@pytest.mark.parametrize("classes", [None, 9])
def test_weights_of_one_network_fill_its_slices(small, letters, tmp_path, classes):
    data, count = (letters, 9) if classes else (small, 10)
    network = build_network(ARCH.blocks())
    for index, value in enumerate(network.parameters()):
        torch.nn.init.constant_(value, index + 1.0)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    initial = InitialWeights(str(tmp_path / "net.safetensors"), classes)
    own = ARCH.with_classes(count)
    recipe = ALONE.model_copy(update={"arch": own.to_json()})
    supernet = supernet_trainer(SPACE, data, recipe, tmp_path / "run", initial=initial).task.model
    before = weights_of(supernet_trainer(SPACE, data, recipe, tmp_path / "run").task.model)
    expected, after = dict(network.named_parameters()), weights_of(supernet)
    classifier = classifier_parameters(supernet)
    for part in supernet.slices(own):
        taken = part.take(after[part.source])
        if classes and part.source in classifier:
            assert not taken.any()
            before[part.source].zero_()
        else:
            assert torch.equal(taken, expected[part.name])
        part.region(after[part.source]).zero_()
        part.region(before[part.source]).zero_()
    assert all(torch.equal(before[name], value) for name, value in after.items()), "others were overwritten"


def test_frozen_stages_stand_still_and_cost_no_gradient(small, trained, tmp_path):
    given = weights_of(load_supernet(trained)[0])
    recipe = ALONE.model_copy(update={"freeze": 3})
    trainer = supernet_trainer(SPACE, small, recipe, tmp_path, initial=InitialWeights(f"supernet:{trained}"))
    trainer.run()
    frozen = tuple(f"slots.{stage.name}_" for stage in SPACE.stages[:3])
    used = {part.source for part in trainer.task.model.slices(ARCH)}
    for name, value in trainer.task.model.named_parameters():
        if name.startswith(frozen):
            assert value.grad is None
            assert torch.equal(value, given[name])
        elif name in used:
            assert not torch.equal(value, given[name])
    too_many = recipe.model_copy(update={"freeze": 64})
    with raises("too_many_frozen_stages"):
        supernet_trainer(SPACE, small, too_many, tmp_path)


def test_a_fine_tuning_run_goes_on_bit_by_bit_and_from_the_same_weights_alone(small, trained, tmp_path):
    initial, recipe = (
        InitialWeights(f"supernet:{trained}"),
        ALONE.model_copy(update={"freeze": 1, "epochs": 2}),
    )
    whole = supernet_trainer(SPACE, small, recipe, tmp_path / "whole", initial=initial)
    finished = whole.run()
    cut_off(supernet_trainer(SPACE, small, recipe, tmp_path / "cut", initial=initial), step=3)
    assert read_info(tmp_path / "cut").step == 2
    with raises("different_run"):
        supernet_trainer(SPACE, small, recipe, tmp_path / "cut").run()
    second = supernet_trainer(SPACE, small, recipe, tmp_path / "cut", initial=initial)
    assert second.run() == finished
    assert same_weights(whole.task.model, second.task.model)


def test_weights_that_do_not_fit_are_named(small, letters, trained, tmp_path):
    network = build_network(ARCH.blocks())
    tensors = network.state_dict()
    first, *_, last, _ = dict(network.named_parameters())
    rows, columns = tensors[last].shape
    damaged = {
        "lacking": (
            {n: t for n, t in tensors.items() if n != first},
            "weights_of_another_network",
        ),
        "more": (tensors | {"extra": torch.zeros(1)}, "weights_of_another_network"),
        "other": (tensors | {first: torch.zeros(1, 2)}, "weights_of_another_network"),
        "nan": (tensors | {first: tensors[first] * float("nan")}, "weights_of_another_network"),
        "classes": (
            tensors | {last: torch.zeros(7, columns)},
            "class_mismatch",
        ),
    }
    for name, (given, why) in damaged.items():
        save_file(given, tmp_path / f"{name}.safetensors")
        _refused(small, ALONE, f"{tmp_path}/{name}.safetensors", why)
    assert rows == 10
    (tmp_path / "text.safetensors").write_text("not one")
    _refused(small, ALONE, f"{tmp_path}/text.safetensors", "invalid_weights")
    _refused(small, ALONE, f"{tmp_path}/none.safetensors", "unreadable_weights")
    save_file(tensors, tmp_path / "whole.safetensors")
    _refused(small, RECIPE, f"{tmp_path}/whole.safetensors", "missing_network")
    _refused(small, ALONE, "somewhere", "unknown_weights_source")
    foreign = SPACE.name.replace("nano", "xxs")
    other = RECIPE.model_copy(update={"arch": get_space(foreign).sample(random.Random(0)).to_json()})
    with raises("weights_of_another_network"):
        supernet_trainer(
            get_space(foreign), small, other, tmp_path / "run", initial=InitialWeights(f"supernet:{trained}")
        )


def _refused(data, recipe, source, code, classes=None):
    with raises(code) as caught:
        supernet_trainer(SPACE, data, recipe, None, initial=InitialWeights(source, classes))
    assert ";" in str(caught.value)


def test_classes_are_retained_or_new(small, letters, trained):
    source = f"supernet:{trained}"
    _refused(letters, ALONE, source, "class_mismatch")
    _refused(letters, ALONE, source, "class_mismatch", classes=5)
    turned = ImageData(dataclasses.replace(small.source, classes=small.source.classes[::-1]))
    _refused(turned, ALONE, source, "class_mismatch")


def test_only_what_was_trained_is_gone_on_with(small, trained, tmp_path):
    supernet_trainer(SPACE, small, ALONE, tmp_path / "alone").run()
    of_other = ALONE.model_copy(update={"arch": OTHER.to_json()})
    _refused(small, of_other, f"supernet:{tmp_path}/alone", "untrained_architecture")
    fewest = min(SPACE.stage_counts)
    part = RECIPE.model_copy(update={"stage_counts": (fewest,)})
    supernet_trainer(SPACE, small, part, tmp_path / "part").run()
    more = next(a for s in range(99) if len((a := SPACE.sample(random.Random(s))).stages) > fewest)
    longer = ALONE.model_copy(update={"arch": more.to_json()})
    _refused(small, longer, f"supernet:{tmp_path}/part", "outside_scope")


def test_the_command_fine_tunes_a_winner(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.tasks.train.open_data", lambda *_: pytest.fail("not asked for"))
    command = ("train", "--data", "digits", "-o", str(tmp_path / "run"))
    with raises("missing_option"):
        CliRunner().invoke(
            app, (*command, "--space", "autovit-nano", "--classes", "10"), catch_exceptions=False
        )
    with raises("nothing_to_train"):
        CliRunner().invoke(app, command, catch_exceptions=False)

"""Recipes with terms: what they refuse, what moves in a step, and that a run resumes bit by bit."""

import hashlib

import pytest
import timm
import torch

from search.spaces import get_space
from search.supernet.recipe.recipe import Distillation, Recipe, changed, get_recipe, recipe_names
from search.supernet.train.checkpoint import load_supernet, read_info, read_tensors
from search.supernet.train.teacher import Teacher
from tests.support.errors import raises
from tests.support.training import cut_off, same_weights, supernet_trainer

NANO = get_space("autovit-nano")

DIGESTS = {
    "cifar10": "1199d22dc09e111c",
    "default": "e5ccb402b7d83b9c",
    "deit": "bdfaf747742520fd",
    "demo": "2a59b91b19575712",
    "efficientvit": "8d8aa53f58bff883",
    "finals": "267cb5c6b004ec4a",
    "finetune": "66ea0f43ed2e3917",
    "imagenet": "777dfd0bb022cdce",
    "imagenet-multiscale": "357f3400daca6311",
    "imagenet-s": "123d019cf8b04165",
    "imagenet-xs": "983b4883de4d9dff",
    "imagenet-xxs": "903d32b880b247a6",
    "mobilevit": "83a9d3cefbf1e23c",
    "one-cycle": "31ca1604ecd6a30f",
    "one-cycle-adamw": "a0c005a32d65aee0",
}
"""Of JSON and text of the packaged recipes, recorded before recipes had terms."""


def test_recipes_without_terms_keep_their_digests():
    found = {}
    for name in recipe_names():
        recipe = get_recipe(name)
        text = recipe.model_dump_json() + repr(recipe)
        found[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert {name: found.get(name) for name in DIGESTS} == DIGESTS


def recipe(*terms, **fields):
    """A recipe of two epochs of two steps."""
    values = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "warmup_epochs": 0, **fields}
    return Recipe(name="terms", distillation=Distillation(terms=terms), **values)


@pytest.fixture(scope="module", params=["test_vit.r160_in1k", "test_resnet.r160_in1k"])
def network(request):
    torch.manual_seed(0)
    return timm.create_model(request.param, num_classes=10)


@pytest.fixture(autouse=True)
def _untrained(monkeypatch):
    monkeypatch.setattr(Teacher, "check", lambda *_: None)


VIT = "test_vit.r160_in1k"


def vit(classes=10, **options):
    torch.manual_seed(0)
    return Teacher("vit", timm.create_model(VIT, num_classes=classes), 160, **options)


def test_a_file_with_terms(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "demo"\n[[distillation.terms]]\nkind = "labels"\n'
        '[[distillation.terms]]\nkind = "dist"\nweight = 2\n'
    )
    mine = get_recipe(str(tmp_path / "mine.toml"))
    assert [term.kind for term in mine.distillation.terms] == ["labels", "dist"]
    assert Recipe.model_validate_json(mine.model_dump_json()) == mine
    assert changed(mine, {}, {"kind": "soft"}).distillation == Distillation(kind="soft")
    with raises("option_does_not_apply"):
        changed(mine, {}, {"tau": 2.0})


@pytest.mark.parametrize(
    "distillation",
    [
        'kind = "terms"',
        'terms = [{ kind = "labels", weight = 0 }]',
        'terms = [{ kind = "in-place" }]',
        'terms = [{ kind = "soft", alpha = 1 }]',
        'terms = [{ kind = "softer" }]',
        'terms = [{ kind = "labels", weight = -1 }]',
        'kind = "soft"\nterms = [{ kind = "labels" }]',
    ],
)
def test_terms_that_are_none_are_refused(tmp_path, distillation):
    (tmp_path / "bad.toml").write_text(f'extends = "demo"\n[distillation]\n{distillation}\n')
    with raises("invalid_recipe"):
        get_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize(
    ("terms", "teacher", "code"),
    [
        ([{"kind": "dkd"}], lambda _: None, "missing_signal"),
        ([{"kind": "soft"}], lambda _: vit(7), "class_mismatch"),
        ([{"kind": "similarity"}], lambda folder: vit(labels=folder), "missing_signal"),
        ([{"kind": "attention"}], lambda _: Teacher("linear", torch.nn.Flatten(), 8), "missing_signal"),
        ([{"kind": "features", "stages": 9}], lambda _: vit(), "missing_signal"),
        ([{"kind": "relations", "heads": 5}], lambda _: vit(), "missing_signal"),
        ([{"kind": "labels"}, {"kind": "in-place"}], lambda _: None, "missing_signal"),
    ],
)
def test_missing_signals_are_refused_before_the_first_step(few_digits, tmp_path, terms, teacher, code):
    folder = tmp_path / "labels"
    with raises(code):
        supernet_trainer(NANO, few_digits(16), recipe(*terms), tmp_path / "run", teacher=teacher(folder))
    assert not folder.exists()


def test_a_teacher_without_attention_has_no_relations(few_digits, tmp_path):
    resnet = Teacher("resnet", timm.create_model("test_resnet.r160_in1k", num_classes=10), 160)
    with raises("missing_signal"):
        supernet_trainer(NANO, few_digits(16), recipe({"kind": "relations"}), tmp_path, teacher=resnet)


def test_observing_a_teacher_changes_no_logits(network):
    from search.supernet.model.supernet import Recorded

    teacher, recorded = Teacher("any", network, 160), Recorded()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(teacher.observe(images, recorded), teacher.logits(images))
    assert all(each.ndim == 4 for each in recorded.features)
    assert (recorded.qkv is None) == ("qkv" not in str(network))


EVERY = (
    {"kind": "labels"},
    {"kind": "soft", "learned": True, "ramp_epochs": 0.1, "weight": 0.5},
    {"kind": "dist"},
    {"kind": "last-epoch"},
    {"kind": "relations"},
    {"kind": "similarity"},
    {"kind": "attention", "stages": 2},
    {"kind": "features", "stages": 2},
)


def outside(supernet, archs, name, tensor):
    """Elements of a parameter that no subnet uses."""
    rest = tensor.clone()
    for arch in archs:
        for part in supernet.slices(arch):
            if part.source == name:
                part.region(rest).zero_()
    return rest


def test_terms_move_the_drawn_subnet_and_what_it_projects(few_digits, tmp_path):
    trainer = supernet_trainer(NANO, few_digits(16), recipe(*EVERY), tmp_path, teacher=vit())
    task = trainer.task
    trainer.train_step()  # whose temperature has no gradient yet: its reversal grows from 0
    before = {name: value.detach().clone() for name, value in task.model.named_parameters()}
    learned = {name: value.detach().clone() for name, value in task.objective.learned.items()}
    trainer.train_step()
    for name, value in task.model.named_parameters():
        if value.grad is not None:
            assert not outside(task.model, task.archs, name, value.grad).any(), name
        moved = outside(task.model, task.archs, name, (value.detach() != before[name]).float())
        assert not moved.any(), name
    (arch,) = task.archs
    widths = [stage.width(values) for stage, values in zip(NANO.stages, arch.stages, strict=False)]
    for name, value in task.objective.learned.items():
        moved = value.detach() != learned[name]
        used = widths[-int(name[-1])] if "projector" in name else 1
        assert moved[..., :used].any(), name
        assert not moved[..., used:].any(), name


def test_a_run_with_learned_tensors_resumes_bit_by_bit(few_digits, tmp_path):
    def trainer(folder):
        return supernet_trainer(NANO, few_digits(16), recipe(*EVERY), tmp_path / folder, teacher=vit())

    whole = trainer("whole")
    whole.run()
    cut_off(trainer("cut"), 3)
    resumed = trainer("cut")
    resumed.run()
    assert resumed.task.objective.previous.keys() == whole.task.objective.previous.keys() != set()
    assert same_weights(resumed.task.model, whole.task.model)
    assert same_weights(resumed.task.objective, whole.task.objective)
    info = read_info(tmp_path / "whole")
    stored = read_tensors(tmp_path / "whole", info, "supernet")
    assert {name.partition("/")[0] for name in stored} == {
        "weights",
        "optimizer",
        "objective",
        "moments",
        "previous",
    }
    supernet, _ = load_supernet(tmp_path / "whole")
    assert same_weights(supernet, whole.task.model), "what is evaluated and exported has no learned tensors"


def test_stored_labels_serve_terms_of_logits(few_digits, tmp_path):
    made = recipe({"kind": "labels"}, {"kind": "dkd"}, {"kind": "mse"}, augmentation_epochs=1)
    first = supernet_trainer(
        NANO, few_digits(16), made, tmp_path / "a", teacher=vit(labels=tmp_path / "labels")
    )
    first.run()
    again = supernet_trainer(
        NANO, few_digits(16), made, tmp_path / "b", teacher=vit(labels=tmp_path / "labels")
    )
    again.task.teacher.model.forward = None
    again.run()
    assert same_weights(first.task.model, again.task.model)


def test_a_sandwich_with_terms_in_place(few_digits, tmp_path):
    """With the weight 2 in place, a smaller subnet's loss is that of its labels and twice that of the largest."""
    terms = {"kind": "labels"}, {"kind": "in-place", "weight": 2}
    trainer = supernet_trainer(
        NANO, few_digits(16), recipe(*terms, sampler="sandwich", label_smoothing=0), tmp_path
    )
    task = trainer.task
    task.start_step(0)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([3, 1, 4, 1])
    losses = [each.value.detach() for each in task.losses(0, 0, (images, labels))]
    with torch.no_grad():
        largest, smaller = (task.model(images, arch) for arch in task.archs[:2])
    cross_entropy = torch.nn.functional.cross_entropy
    torch.testing.assert_close(losses[0], cross_entropy(largest, labels))
    in_place = cross_entropy(smaller, largest.softmax(1))
    torch.testing.assert_close(losses[1], cross_entropy(smaller, labels) + 2 * in_place)

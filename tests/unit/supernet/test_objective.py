"""Recipes with terms: what they refuse, what moves in a step, and that a run resumes bit by bit."""

import hashlib

import pytest
import timm
import torch
from torch.func import functional_call

from search.spaces import get_space
from search.supernet.model.supernet import Recorded
from search.supernet.recipe.recipe import Distillation, Recipe, changed, get_recipe, recipe_names
from search.supernet.recipe.terms import Signals
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
        'terms = [{ kind = "soft", learned = "often" }]',
        'terms = [{ kind = "soft", teacher = 9 }]',
        'terms = [{ kind = "labels", teacher = 1 }]',
        'terms = [{ kind = "labels", weight = -1 }]',
        'kind = "soft"\nterms = [{ kind = "labels" }]',
    ],
)
def test_terms_that_are_none_are_refused(tmp_path, distillation):
    (tmp_path / "bad.toml").write_text(f'extends = "demo"\n[distillation]\n{distillation}\n')
    with raises("invalid_recipe"):
        get_recipe(str(tmp_path / "bad.toml"))


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ('[{ kind = "labels" }, { kind = "dkd", gama = 2 }]', "terms.1.dkd.gama"),
        ('[{ kind = "labels", weight = 0 }, { kind = "soft", weight = 0 }]', "sum to nothing"),
    ],
)
def test_a_refusal_names_the_field(tmp_path, terms, words):
    (tmp_path / "bad.toml").write_text(f'extends = "demo"\n[distillation]\nterms = {terms}\n')
    with raises("invalid_recipe") as caught:
        get_recipe(str(tmp_path / "bad.toml"))
    assert words in str(caught.value)


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
        ([{"kind": "labels"}, {"kind": "soft", "teacher": 2}], lambda _: vit(), "missing_signal"),
        ([{"kind": "labels"}, {"kind": "soft", "weight": 0}], lambda _: vit(), "option_does_not_apply"),
    ],
)
def test_missing_signals_are_refused_before_the_first_step(few_digits, tmp_path, terms, teacher, code):
    folder = tmp_path / "labels"
    with raises(code):
        supernet_trainer(NANO, few_digits(16), recipe(*terms), tmp_path / "run", teacher=teacher(folder))
    assert not folder.exists()


def test_two_teachers_need_terms_and_meta_needs_two_halves(few_digits, tmp_path):
    soft = Recipe(name="soft", epochs=1, batch_size=8, learning_rate=1e-3, warmup_epochs=0)
    with raises("option_does_not_apply"):
        supernet_trainer(NANO, few_digits(16), soft, tmp_path, teachers=[vit(), vit()])
    halves = recipe({"kind": "soft", "learned": "meta"}, micro_batches=4)
    with raises("missing_signal"):
        supernet_trainer(NANO, few_digits(16), halves, tmp_path, teacher=vit())


def test_a_term_learns_from_its_own_teacher(few_digits, tmp_path):
    terms = {"kind": "hard", "weight": 2}, {"kind": "soft", "teacher": 2, "weight": 3}, {"kind": "similarity"}
    teachers = [vit(), Teacher("resnet", timm.create_model("test_resnet.r160_in1k", num_classes=10), 160)]
    task = supernet_trainer(NANO, few_digits(16), recipe(*terms), tmp_path, teachers=teachers).task
    assert task.fields["teacher"] == "vit,resnet"
    task.start_step(0)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([3, 1, 4, 1])
    (loss,) = (each.value.detach() for each in task.losses(0, 0, (images, labels)))
    with torch.no_grad():
        logits = task.model(images, task.archs[0])
        first, second = (each.logits(images) for each in teachers)
    task.objective.terms = task.objective.terms[2:]
    (similarity,) = (each.value.detach() for each in task.losses(0, 0, (images, labels)))
    hard = torch.nn.functional.cross_entropy(logits, first.argmax(1))
    soft = torch.nn.functional.kl_div(
        logits.log_softmax(1), second.log_softmax(1), reduction="batchmean", log_target=True
    )
    torch.testing.assert_close(loss, 2 * hard + 3 * soft + similarity)


def test_meta_temperatures_descend_the_loss_after_a_step(few_digits, tmp_path):
    """The gradient is that of the second half's cross-entropy after a step on the first half's term, per rate."""
    made = recipe({"kind": "soft", "learned": "meta"})
    task = supernet_trainer(NANO, few_digits(16), made, tmp_path, teacher=vit()).task
    objective, model = task.objective.double(), task.model.double()
    task.start_step(0)
    (arch,) = task.archs
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(8, 3, 64, 64, generator=generator, dtype=torch.float64)
    labels, taught = torch.arange(8), Recorded(torch.randn(8, 10, generator=generator, dtype=torch.float64))
    signals = Signals(logits=images, labels=labels)
    objective.meta_loss(model, images, arch, signals, [taught]).backward()
    found = objective.learned["0-temperatures"].grad
    weights, rate, shift = dict(model.named_parameters()), 1e-5, 1e-3

    def after_a_step(temperatures):
        logits = functional_call(model, weights, (images[:4], arch))
        loss = objective.terms[0].loss(
            Signals(
                logits=logits,
                labels=labels,
                teacher_logits=taught.logits[:4],
                learned={"temperatures": temperatures},
            )
        )
        moved = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        stepped = {
            name: value if g is None else value - rate * g
            for (name, value), g in zip(weights.items(), moved, strict=True)
        }
        with torch.no_grad():
            logits = functional_call(model, stepped, (images[4:], arch))
            return torch.nn.functional.cross_entropy(logits, labels[4:])

    start = objective.learned["0-temperatures"].detach()
    expected = torch.stack(
        [
            (after_a_step(start + shift * axis) - after_a_step(start - shift * axis)) / (2 * shift * rate)
            for axis in torch.eye(2, dtype=torch.float64)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-6)
    assert found.abs().min() > 1e-5


def test_a_teacher_without_attention_has_no_relations(few_digits, tmp_path):
    resnet = Teacher("resnet", timm.create_model("test_resnet.r160_in1k", num_classes=10), 160)
    with raises("missing_signal"):
        supernet_trainer(NANO, few_digits(16), recipe({"kind": "relations"}), tmp_path, teacher=resnet)


def test_observing_a_teacher_changes_no_logits(network):
    teacher, recorded = Teacher("any", network, 160), Recorded()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(teacher.observe(images, recorded), teacher.logits(images))
    assert all(each.ndim == 4 for each in recorded.features)
    assert (recorded.qkv is None) == ("qkv" not in str(network))


EVERY = (
    {"kind": "labels"},
    {"kind": "soft", "learned": True, "ramp_epochs": 0.1, "weight": 0.5},
    {"kind": "soft", "learned": "image", "ramp_epochs": 0.1},
    {"kind": "soft", "learned": "meta"},
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
        used = widths[-int(name[-1])] if "projector" in name else None
        assert moved[..., :used].any(), name
        assert used is None or not moved[..., used:].any(), name


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
    again.task.teachers[0].model.forward = None
    again.run()
    assert same_weights(first.task.model, again.task.model)


def test_stored_labels_of_two_teachers(few_digits, tmp_path):
    """A recording teacher runs in every step, next to one whose logits are stored."""
    made = recipe(
        {"kind": "soft"},
        {"kind": "soft", "teacher": 2},
        {"kind": "attention", "teacher": 3},
        augmentation_epochs=1,
    )

    def trainer(run):
        stored = [vit(labels=tmp_path / "labels" / name) for name in ("one", "two")]
        return supernet_trainer(NANO, few_digits(16), made, tmp_path / run, teachers=[*stored, vit()])

    first, again = trainer("a"), trainer("b")
    first.run()
    for teacher in again.task.teachers[:2]:
        teacher.model.forward = None
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

"""Losses of labels and teachers by hand, and the gradients of one step."""

import math
import random

import pytest
import torch
from torch.nn.functional import log_softmax, softmax

from search.spaces import get_space
from search.supernet.recipe.recipe import Distillation, Recipe, in_place_loss
from tests.support.training import supernet_trainer

STUDENT = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
"""Softmax (3/4, 1/4) and (1/2, 1/2)."""

TEACHER = torch.tensor([[0.0, math.log(4.0)], [math.log(4.0), 0.0]])
"""Softmax (1/5, 4/5) and (4/5, 1/5): decides for 1, then 0."""

LABELS = torch.tensor([0, 1])
OWN = (math.log(4 / 3) + math.log(2)) / 2


def test_hard_labels_as_in_equation_4():
    taught = (math.log(4) + math.log(2)) / 2
    loss = Distillation(kind="hard", alpha=0.25).loss(STUDENT, LABELS, TEACHER)
    assert loss.item() == pytest.approx(0.75 * OWN + 0.25 * taught, rel=1e-6)


@pytest.mark.parametrize(("kind", "alpha"), [("none", 0.0), ("hard", 0.25)])
def test_labels_are_smoothed_and_the_teacher_is_not(kind, alpha):
    """0.2 of two classes: 0.9 for the label, 0.1 for the other."""
    own = (0.9 * math.log(4 / 3) + 0.1 * math.log(4) + math.log(2)) / 2
    taught = (math.log(4) + math.log(2)) / 2
    loss = Distillation(kind=kind, alpha=alpha).loss(STUDENT, LABELS, TEACHER, label_smoothing=0.2)
    assert loss.item() == pytest.approx((1 - alpha) * own + alpha * taught, rel=1e-6)


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_soft_labels_as_in_equation_3(tau):
    """At tau = 2 a softmax of (log a, 0) becomes (sqrt(a), 1) / (sqrt(a) + 1)."""
    root3, root4 = 3 ** (1 / tau), 4 ** (1 / tau)
    student = [(root3 / (root3 + 1), 1 / (root3 + 1)), (0.5, 0.5)]
    teacher = [(1 / (root4 + 1), root4 / (root4 + 1)), (root4 / (root4 + 1), 1 / (root4 + 1))]
    pairs = [zip(t, s, strict=True) for t, s in zip(teacher, student, strict=True)]
    taught = sum(t * math.log(t / s) for pair in pairs for t, s in pair) / 2
    loss = Distillation(kind="soft", alpha=0.4, tau=tau).loss(STUDENT, LABELS, TEACHER)
    assert loss.item() == pytest.approx(0.6 * OWN + 0.4 * tau**2 * taught, rel=1e-6)


def test_without_distillation_the_teacher_has_no_say():
    assert Distillation(kind="none").loss(STUDENT, LABELS, TEACHER).item() == pytest.approx(OWN)
    assert Distillation(alpha=0.9).loss(STUDENT, LABELS, None).item() == pytest.approx(OWN)


def test_mixed_images_have_probabilities_for_labels():
    mixed = torch.tensor([[0.5, 0.5], [0.0, 1.0]])
    expected = (0.5 * math.log(4 / 3) + 0.5 * math.log(4) + math.log(2)) / 2
    assert Distillation(kind="none").loss(STUDENT, mixed, None).item() == pytest.approx(expected)


def test_in_place_distillation_leaves_the_largest_alone():
    largest = TEACHER.clone().requires_grad_()
    small = STUDENT.clone().requires_grad_()
    loss = in_place_loss(small, largest)
    expected = (-0.2 * math.log(3 / 4) - 0.8 * math.log(1 / 4) + math.log(2)) / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert largest.grad is None
    torch.testing.assert_close(small.grad, (STUDENT.softmax(1) - TEACHER.softmax(1)) / 2)


NANO = get_space("autovit-nano")
SMOOTHING = 0.3


def cross_entropy(logits, wanted):
    return -(wanted * log_softmax(logits, 1)).sum(1).mean()


def smoothed(labels, classes):
    wanted = torch.full((len(labels), classes), SMOOTHING / classes)
    wanted[torch.arange(len(labels)), labels] += 1 - SMOOTHING
    return wanted


@pytest.mark.parametrize(("sampler", "micro_batches"), [("sandwich", 2), ("uniform", 1)])
def test_the_first_learns_from_smoothed_labels_and_a_sandwich_from_its_first(
    few_digits, tmp_path, sampler, micro_batches
):
    recipe = Recipe(
        name="tiny",
        epochs=1,
        batch_size=8,
        micro_batches=micro_batches,
        learning_rate=1e-3,
        sampler=sampler,
        label_smoothing=SMOOTHING,
    )
    trainer = supernet_trainer(NANO, few_digits(16), recipe, tmp_path)
    task, supernet = trainer.task, trainer.task.model
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 64, 64), torch.tensor([3, 1, 4, 1])
    task.archs = archs = task.sampler.draw(random.Random(5), 64)
    assert len(archs) == (4 if sampler == "sandwich" else 1)
    losses = []
    for each in task.losses(0, 0, (images, labels)):
        each.value.backward()
        losses.append(each)
    found = {name: value.grad for name, value in supernet.named_parameters() if value.grad is not None}

    supernet.zero_grad()
    first, *others = (supernet(images, arch) for arch in archs)
    own = cross_entropy(first, smoothed(labels, first.shape[1]))
    taught = [cross_entropy(other, softmax(first.detach(), 1)) for other in others]
    torch.autograd.backward((own + sum(taught)) / micro_batches)
    assert losses[0].correct == (first.argmax(1) == labels).sum()
    torch.testing.assert_close(losses[0].value.detach(), own.detach() / micro_batches)
    wanted = {name: value.grad for name, value in supernet.named_parameters() if value.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)

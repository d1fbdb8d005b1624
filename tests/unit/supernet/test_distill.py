"""Equations 3 and 4 of AutoViT and the sandwich's in-place loss, with numbers worked out by hand."""

import math

import pytest
import torch

from search.supernet.recipe.recipe import Distillation, in_place_loss

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

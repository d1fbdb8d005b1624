"""Gradients of one step, against losses written out here."""

import random

import pytest
import torch
from torch.nn.functional import log_softmax, softmax

from search.spaces import get_space
from search.supernet.recipe.recipe import Recipe
from tests.support.training import supernet_trainer

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

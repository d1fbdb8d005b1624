"""What a classifier says of images: counted, compared, and read off an exported program and PyTorch alike."""

import os

import numpy as np
import pytest
import torch

from luts.estimate.statistics import Proportion
from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.network import guess_with_network
from orchestrator.accuracy.predictions import Guesses, guesses_of, in_processes
from orchestrator.accuracy.program import PART, guess_with_program
from search.supernet.data.images import Normalization
from search.supernet.data.sources import open_source

OTHER = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def image_set(count, **how):
    source = open_source("digits")
    return ImageSet("digits", source.digest, np.arange(count)[::-1].copy(), **how)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (9000, 10000, 0.8940, 0.9057)],
)
def test_wilsons_interval(hits, trials, low, high):
    """As Wilson's formula gives it by hand: 0 of 10 is z^2 / (10 + z^2) at most, with z = 1.96."""
    share = Proportion(hits, trials)
    assert share.share == hits / trials
    assert share.interval == pytest.approx((low, high), abs=1e-4)


def test_first_guesses_are_the_largest_logits_and_ties_go_to_the_lower_index():
    logits = np.array([[0, 3, 1, 3, 2, -1, 9], [1, 0, 0, 0, 0, 0, 0]], np.float32)
    assert guesses_of(logits).tolist() == [[6, 1, 3, 4, 2], [0, 1, 2, 3, 4]]
    assert guesses_of(np.array([[0.0, 1.0]])).tolist() == [[1, 0]]
    with pytest.raises(InvalidArtifactError, match="not finite"):
        guesses_of(np.array([[0.0, np.nan]]))


def test_accuracy_and_agreement_are_counted_image_by_image():
    guesses = Guesses(np.array([[6, 1, 3], [0, 1, 2], [4, 0, 6]]), 7)
    expected = np.array([6, 2, 5])
    assert guesses.accuracy(expected) == Proportion(1, 3)
    assert guesses.accuracy(expected, among=5) == Proportion(2, 3)
    assert guesses.agreement(Guesses(np.array([[6], [1], [4]]), 7)) == Proportion(2, 3)


def torch_twin():
    """The network that `tiny` was exported from."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()


def test_a_program_says_of_images_what_pytorch_says(exported):
    count = PART + 3
    images = image_set(count, normalization=OTHER)
    expected = guess_with_network(torch_twin(), images, 32)
    program = guess_with_program(exported.path, images, workers=2)
    assert (program.first.shape, program.outputs) == ((count, 5), 8)
    assert program.agreement(expected).share > 0.97


def test_images_come_as_each_network_was_trained_to_see_them():
    images = image_set(5)
    raw = images.data.source.image(4) / 255
    for normalization, mean, std in [(Normalization(), 0.485, 0.229), (OTHER, 0.5, 0.5)]:
        seen = next(images.seen_with(normalization, 8).batches(8, 0, 1, 1))
        assert seen.shape == (1, 3, 8, 8)
        assert seen[0, 0] == pytest.approx((raw[..., 0] - mean) / std, abs=1e-5)
    assert images.labels.tolist() == images.data.source.labels[:5][::-1].tolist()


def test_what_is_known_is_not_asked_again(exported):
    images, kept = image_set(2 * PART + 5), []
    whole = guess_with_program(exported.path, images, keep=kept.append)
    assert [len(guesses.first) for guesses in kept] == [PART, 2 * PART, 2 * PART + 5]
    again = []
    resumed = guess_with_program(exported.path, images, known=kept[1], keep=again.append)
    assert np.array_equal(resumed.first, whole.first)
    assert [len(guesses.first) for guesses in again] == [2 * PART + 5]
    assert guess_with_program(exported.path, images, known=whole, keep=again.append) == whole
    assert guess_with_network(torch_twin(), images, 32, known=whole, keep=again.append) == whole
    assert len(again) == 1


def test_other_images_damaged_programs_and_other_shapes_are_one_line(exported, tmp_path):
    images = image_set(3)
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(exported.path.read_bytes()[:100])
    for path, what in [
        (damaged, "damaged.pte.*export it again"),
        (tmp_path / "none.pte", "cannot read|No such"),
    ]:
        with pytest.raises(InvalidArtifactError, match=what) as caught:
            guess_with_program(path, images)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="digits has changed"):
        guess_with_program(exported.path, ImageSet("digits", "0" * 64, np.arange(3)))


def serve_until(connection, last):
    """Answers with the square; ends hard at a task."""
    while True:
        task = connection.recv()
        if task == last:
            os._exit(9)
        connection.send(task * task)


def test_answers_come_in_order_and_a_process_that_dies_ends_as_an_error():
    assert list(in_processes(serve_until, (-1,), range(7), 3)) == [n * n for n in range(7)]
    answers = in_processes(serve_until, (2,), range(7), 1)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(InvalidArtifactError, match="crashed on the program .exit code 9"):
        next(answers)

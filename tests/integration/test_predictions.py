"""Predictions of exported programs and PyTorch: counted, compared, resumed."""

import contextlib

import numpy as np
import pytest
import torch

from luts.estimate.statistics import Proportion
from orchestrator.accuracy.network import predict_with_network
from orchestrator.accuracy.predictions import ImageSet, PredictionCache, Predictions
from orchestrator.accuracy.program import IMAGES_PER_TASK, predict_with_program
from search.supernet.data.images import Normalization
from search.supernet.data.sources import open_source
from tests.support.errors import raises

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
    assert Predictions.of_logits(logits).first.tolist() == [[6, 1, 3, 4, 2], [0, 1, 2, 3, 4]]
    assert Predictions.of_logits(np.array([[0.0, 1.0]])).first.tolist() == [[1, 0]]
    with raises("outputs_not_finite"):
        Predictions.of_logits(np.array([[0.0, np.nan]]))


def test_accuracy_and_agreement_are_counted_image_by_image():
    guesses = Predictions(np.array([[6, 1, 3], [0, 1, 2], [4, 0, 6]]), 7, np.ones(3))
    expected = np.array([6, 2, 5])
    assert guesses.accuracy(expected) == Proportion(1, 3)
    assert guesses.accuracy(expected, among=5) == Proportion(2, 3)
    assert guesses.agreement(Predictions(np.array([[6], [1], [4]]), 7, np.ones(3))) == Proportion(2, 3)


def torch_twin():
    """The network that `tiny` was exported from."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()


def test_a_program_says_of_images_what_pytorch_says(exported):
    count = IMAGES_PER_TASK + 3
    images = image_set(count, normalization=OTHER)
    expected = predict_with_network(torch_twin(), images, 32)
    program = predict_with_program(exported.path, images, workers=2)
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
    images, kept = image_set(2 * IMAGES_PER_TASK + 5), []
    whole = predict_with_program(exported.path, images, on_predictions=kept.append)
    assert [len(guesses.first) for guesses in kept] == [
        IMAGES_PER_TASK,
        2 * IMAGES_PER_TASK,
        2 * IMAGES_PER_TASK + 5,
    ]
    again = []
    resumed = predict_with_program(exported.path, images, known=kept[1], on_predictions=again.append)
    assert np.array_equal(resumed.first, whole.first)
    assert [len(guesses.first) for guesses in again] == [2 * IMAGES_PER_TASK + 5]
    assert predict_with_program(exported.path, images, known=whole, on_predictions=again.append) == whole
    assert predict_with_network(torch_twin(), images, 32, known=whole, on_predictions=again.append) == whole
    assert len(again) == 1


def test_other_images_damaged_programs_and_other_shapes_are_one_line(exported, tmp_path):
    images = image_set(3)
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(exported.path.read_bytes()[:100])
    for path, code in [(damaged, "damaged_model"), (tmp_path / "none.pte", "unreadable_file")]:
        with raises(code):
            predict_with_program(path, images)
    with raises("data_changed"):
        predict_with_program(exported.path, ImageSet("digits", "0" * 64, np.arange(3)))


@pytest.mark.parametrize(("kept", "outputs", "whole"), [(5, 10, True), (3, 10, False), (3, 3, True)])
def test_cached_predictions_have_the_first_five(tmp_path, kept, outputs, whole):
    """Fewer make top-5 accuracy too low, unless there are fewer classes."""
    cache = PredictionCache(tmp_path, "classifier", image_set(4, side=8))
    (tmp_path / "guesses").mkdir()
    cache.write(Predictions(np.tile(np.arange(kept, dtype=np.int32), (4, 1)), outputs, np.ones(4)))
    with contextlib.nullcontext() if whole else raises("damaged_cache"):
        assert cache.read().outputs == outputs

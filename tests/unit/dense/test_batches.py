"""Batches: boxes and masks go with their images, and a seed decides everything."""

import numpy as np
import pytest
import torch

from search.dense.data import DenseBatches, crop_boxes, crop_mask, normalize, plain_batches
from search.dense.scenes import VOID, Objects, Scenes
from search.supernet.data.images import IMAGENET


@pytest.fixture(scope="module")
def scenes():
    """One image of 60 x 40 with a white object on black, as box and mask; and a crowd."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:30, 12:36] = 255
    mask = (pixels[..., 0] > 0).astype(np.uint8) * 5
    objects = Objects(
        np.array([[12, 10, 36, 30], [0, 0, 5, 5]], np.float32),
        np.array([5, 1]),
        np.array([False, True]),
        np.array([480, 25], np.float32),
    )
    index = np.arange(1)
    return Scenes(
        "made", ("a",) * 5, ["one"], np.array([[40, 60]]), index, index, 0,
        lambda _: pixels, lambda _: objects, lambda _: mask, "",
    )  # fmt: skip


def bright(image):
    """Edges of what is white, 0 to 1."""
    rows, columns = (image[0] > 1).nonzero(as_tuple=True)
    height, width = image.shape[-2:]
    return [
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    ]


def test_without_augmentation_boxes_are_shares_of_the_image(scenes):
    batch = DenseBatches(scenes, "detection", 1, 32, 0, augmented=False).batch(0)
    assert batch.images.shape == (1, 3, 32, 32)
    assert batch.objects[0].labels.tolist() == [5]
    np.testing.assert_allclose(batch.objects[0].boxes, [[0.2, 0.25, 0.6, 0.75]], rtol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_boxes_follow_crops_and_mirror_images(scenes, seed):
    batch = DenseBatches(scenes, "detection", 1, 128, seed).batch(0)
    np.testing.assert_allclose(batch.objects[0].boxes[0], bright(batch.images[0]), atol=0.04)


@pytest.mark.parametrize("seed", range(6))
def test_masks_follow_scales_crops_and_mirror_images(scenes, seed):
    batch = DenseBatches(scenes, "segmentation", 1, 64, seed).batch(0)
    mask, white = batch.masks[0], batch.images[0, 0] > 1
    assert set(mask.unique().tolist()) <= {0, 5, VOID}
    counted = mask != VOID
    assert ((mask == 5) == white)[counted].float().mean() > 0.95


def test_a_seed_decides_a_batch(scenes):
    one, same, other = (DenseBatches(scenes, "detection", 1, 32, seed).batch(0).images for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_global_random_numbers_stay_as_they_are(scenes):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    DenseBatches(scenes, "detection", 1, 32, 1).batch(0)
    DenseBatches(scenes, "segmentation", 1, 32, 1).batch(0)
    assert torch.equal(torch.rand(2), expected)


def test_an_image_too_small_to_crop():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    _, boxes, labels = crop_boxes(image, torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([1]), 0)
    assert boxes.tolist() == [[0, 0, 4, 4]]
    assert labels.tolist() == [1]


def test_what_lies_outside_of_an_image_is_void():
    image, mask = torch.full((3, 8, 8), 255, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8)
    masks = [crop_mask(image, mask, 16, seed)[1] for seed in range(10)]
    assert any((one == VOID).any() for one in masks)
    assert all(one.shape == (16, 16) for one in masks)


def test_plain_batches_come_in_order(scenes):
    indices = np.array([0, 0, 0])
    parts = list(plain_batches(scenes, indices, 16, 2))
    assert [len(part) for part, _ in parts] == [2, 1]
    assert parts[0][1].shape == (2, 3, 16, 16)


def test_normalisation():
    image = torch.full((3, 1, 1), 255, dtype=torch.uint8)
    expected = [(1 - mean) / std for mean, std in zip(IMAGENET.mean, IMAGENET.std, strict=True)]
    assert normalize(image).flatten().tolist() == pytest.approx(expected)

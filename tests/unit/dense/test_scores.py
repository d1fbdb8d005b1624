"""mAP and mIoU of cases worked out by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from search.dense import metrics
from search.dense.data import open_scenes
from search.dense.metrics import Detected, mean_iou, mean_precision
from search.dense.scenes import VOID


@pytest.fixture
def scenes(edit_coco):
    """Three validation images with one object of 40 x 40 pixels each, of class 1, the third of class 2."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")

    def change(document):
        document["annotations"] = [
            {
                "id": n,
                "image_id": n,
                "category_id": 2 if n == 3 else 1,
                "bbox": [10, 10, 40, 40],
                "area": 1600,
            }
            for n in (1, 2, 3)
        ]

    return open_scenes(edit_coco(change, "val"), "detection")


def found(*rows):
    boxes, scores, labels = zip(*rows, strict=True) if rows else ([], [], [])
    return Detected(
        np.asarray(boxes, np.float32).reshape(-1, 4),
        np.asarray(scores, np.float32),
        np.asarray(labels, np.int64),
    )


RIGHT = (10, 10, 50, 50)


def test_everything_found(scenes):
    precision = mean_precision(
        scenes, {6: found((RIGHT, 0.9, 1)), 7: found((RIGHT, 0.8, 1)), 8: found((RIGHT, 0.7, 2))}
    )
    assert precision["map"] == precision["map50"] == 1
    assert precision["map_medium"] == 1
    assert precision["map_small"] is None


def test_half_of_an_overlap_counts_at_few_thresholds(scenes):
    """A box of 40 x 28.4 in one of 40 x 40 overlaps by 0.71: right at 0.5, 0.55, 0.6, 0.65 and 0.7 of ten."""
    narrow = (10, 10, 50, 38.4)
    precision = mean_precision(
        scenes, {6: found((narrow, 0.9, 1)), 7: found((narrow, 0.8, 1)), 8: found((narrow, 0.7, 2))}
    )
    assert precision["map50"] == 1
    assert precision["map75"] == 0
    assert precision["map"] == pytest.approx(0.5)


def test_a_class_that_is_missed_halves_the_mean(scenes):
    precision = mean_precision(scenes, {6: found((RIGHT, 0.9, 1)), 7: found((RIGHT, 0.8, 1)), 8: found()})
    assert precision["map"] == pytest.approx(0.5)


def test_nothing_found(scenes):
    assert mean_precision(scenes, {6: found(), 7: found(), 8: found()})["map"] == 0


def test_what_is_surer_and_wrong_costs_precision(scenes):
    """Class 1: right at rank 2 and 3 of 3: precision 2/3 up to full recall; class 2 is found."""
    wrong = (0, 0, 5, 5)
    precision = mean_precision(
        scenes,
        {6: found((wrong, 0.95, 1), (RIGHT, 0.9, 1)), 7: found((RIGHT, 0.8, 1)), 8: found((RIGHT, 0.7, 2))},
    )
    assert precision["map"] == pytest.approx((2 / 3 + 1) / 2)


def test_ignored_objects_need_not_be_found():
    """One object of two is found, and the other one is ignored: precision 1, not 1/2."""
    pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
    objects = SimpleNamespace(
        boxes=np.array([RIGHT, (60, 10, 100, 50)]), labels=[1, 1], ignored=[False, True], areas=[1600, 1600]
    )
    scenes: Any = SimpleNamespace(objects=lambda _: objects, names=["one"], classes=("thing",))
    assert mean_precision(scenes, {0: found((RIGHT, 0.9, 1))})["map"] == pytest.approx(1.0)


def test_boxes_are_in_pixels_of_width_and_height(monkeypatch):
    """Of 100 rows and 200 columns: 0.1 of the width is 20, 0.2 of the height too."""
    box = SimpleNamespace(
        boxes=torch.tensor([[0.1, 0.2, 0.5, 0.6]]), scores=torch.ones(1), labels=torch.ones(1)
    )
    monkeypatch.setattr(metrics, "detections", lambda *_: [box])
    scenes: Any = SimpleNamespace(sizes=[(100, 200)])
    detected = metrics._detections(scenes, torch.empty(0), [(np.array([0]), torch.empty(1))])
    np.testing.assert_allclose(detected[0].boxes, [[20, 20, 100, 60]], rtol=1e-6)


def test_overlap_of_masks():
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, VOID]], np.uint8)
    guess = np.array([[0, 1, 1, 1], [0, 0, 0, 2]], np.uint8)
    # background: 3 of 5; class 1: 2 of 4; class 2 neither in truth nor, where that counts, in guesses
    overlap = mean_iou([(guess, truth)], 3)
    assert overlap["miou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert overlap["pixel_accuracy"] == pytest.approx(5 / 7)


def test_overlap_is_of_all_images_together():
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")
    ones, none = np.ones((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    # background 4 of 8, class 1 0 of 4
    assert mean_iou([(none, none), (none, ones)], 1)["miou"] == pytest.approx((0.5 + 0) / 2)


def test_no_images():
    pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")
    with pytest.raises(ValueError, match="no images"):
        mean_iou([], 2)

"""Losses: SSD's against torchvision's own, cases worked out by hand, and that of segmentation."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import log_softmax
from torchvision.models.detection import _utils
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_convert, box_iou

from search.dense.data import BoxTarget
from search.dense.scenes import VOID
from search.dense.training import match, multibox_loss, pixel_loss
from search.networks.outputs import default_boxes

SIDE = 64
"""Pixels in which torchvision has its boxes; a power of two rounds as none, so that ties are broken alike."""


def random_objects(generator, count):
    low = torch.rand(count, 2, generator=generator) * 0.6
    high = low + 0.05 + torch.rand(count, 2, generator=generator) * 0.35
    labels = torch.randint(1, 5, (count,), generator=generator)
    return BoxTarget(torch.cat((low, high), 1), labels)


def of_torchvision(output, default, objects):
    """Its SSD's losses of the same outputs."""
    model = SimpleNamespace(box_coder=_utils.BoxCoder((10.0, 10.0, 5.0, 5.0)), neg_to_pos_ratio=3.0)
    anchors = box_convert(default, "cxcywh", "xyxy") * SIDE
    targets = [{"boxes": one.boxes * SIDE, "labels": one.labels} for one in objects]
    matcher = _utils.SSDMatcher(0.5)
    matched = [
        matcher(box_iou(one["boxes"], anchors)) if len(one["boxes"]) else torch.full((len(anchors),), -1)
        for one in targets
    ]
    outputs = {"bbox_regression": output[..., -4:], "cls_logits": output[..., :-4]}
    return SSD.compute_loss(model, targets, outputs, [anchors] * len(objects), matched)


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_torchvisions(seed):
    generator = torch.Generator().manual_seed(seed)
    default = default_boxes((6, 3, 2, 1))
    objects = [random_objects(generator, count) for count in (3, 1, 6, 0)]
    output = torch.randn(4, len(default), 5 + 4, generator=generator)
    (classes, boxes), theirs = (
        multibox_loss(output, default, objects),
        of_torchvision(output, default, objects),
    )
    torch.testing.assert_close(classes, theirs["classification"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(boxes, theirs["bbox_regression"], rtol=1e-4, atol=1e-5)


DEFAULT = torch.tensor(
    [[0.25, 0.25, 0.5, 0.5], [0.75, 0.25, 0.5, 0.5], [0.25, 0.75, 0.5, 0.5], [0.75, 0.75, 0.5, 0.5]]
)
"""Four quarters of the image."""


def test_objects_take_the_quarters_that_they_overlap():
    boxes = torch.tensor(
        [[0.0, 0.0, 0.5, 0.4], [0.6, 0.6, 0.7, 0.7]]
    )  # 80 % of the first quarter; 4 % of the last
    assert match(boxes, DEFAULT).tolist() == [0, -1, -1, 1]


def test_two_objects_at_one_place():
    """The last takes its best default box from the first, as in torchvision; the threshold decides the others."""
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.4]])
    assert match(boxes, DEFAULT).tolist() == [1, -1, -1, -1]


def test_nothing_to_match():
    assert match(torch.zeros(0, 4), DEFAULT).tolist() == [-1] * 4


def test_a_perfect_output_costs_its_negatives_alone():
    """One object in the first quarter, found exactly and surely; all logits of the others equal: log 3 each."""
    output = torch.zeros(1, 4, 3 + 4)
    output[0, 0, 2] = 100.0
    classes, boxes = multibox_loss(
        output, DEFAULT, [BoxTarget(torch.tensor([[0.0, 0.0, 0.5, 0.5]]), torch.tensor([2]))]
    )
    assert boxes == 0
    assert classes.item() == pytest.approx(3 * math.log(3), rel=1e-5)


def test_images_without_objects_give_no_gradient():
    output = torch.randn(2, 4, 7, requires_grad=True)
    none = BoxTarget(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    total = sum(multibox_loss(output, DEFAULT, [none, none]))
    total.backward()
    assert total == 0
    assert not output.grad.any()


def test_pixels_that_are_void_do_not_count():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # two classes, two pixels
    output = logits.T[None, :, None, :].clone().requires_grad_()
    masks = torch.tensor([[[1, VOID]]])
    loss = pixel_loss(output, masks)
    assert loss.item() == pytest.approx(-log_softmax(logits, 1)[0, 1].item())
    loss.backward()
    assert not output.grad[..., 1].any()


def test_a_mask_that_is_all_void_costs_nothing():
    assert pixel_loss(torch.randn(1, 3, 2, 2), torch.full((1, 4, 4), VOID)) == 0


def test_logits_are_stretched_to_the_mask():
    output = torch.zeros(1, 2, 2, 2)
    output[0, 1, :, 0], output[0, 1, :, 1] = -50.0, 50.0
    masks = torch.zeros(1, 8, 8, dtype=torch.int64)
    masks[..., 4:] = 1
    right, wrong = pixel_loss(output, masks), pixel_loss(output, 1 - masks)
    assert right < 1e-3 < 1 < wrong

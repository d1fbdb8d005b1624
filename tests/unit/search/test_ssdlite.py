"""SSDLite against torchvision's SSDLite320, layer by layer and box by box."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms

from search.blocks import count, parse_key
from search.networks import build_block
from search.outputs.detection import (
    decode,
    default_boxes,
    detections,
    encode,
    intersection_over_union,
    non_maximum_suppression,
)
from search.spaces.task_heads import ssdlite_ends
from tests.support.seeded import seeded

CLASSES = 20
MAPS = ((672, 20), (480, 10))
"""Channels and sides of the two maps of torchvision's MobileNetV3-Large at 320 px."""


@pytest.fixture(scope="module")
def theirs():
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    return seeded(model.eval())


def our_head():
    """Blocks of the head, those of the first map in front."""
    first = parse_key(f"ssd.predict(in=672,boxes=6,classes={CLASSES})@20")
    return [first, *ssdlite_ends((20, 10), 480, CLASSES)]


def with_their_weights(theirs):
    """Modules of our head with torchvision's weights, in the order in which both list them."""
    extra = iter(theirs.backbone.extra)
    logits = iter(theirs.head.classification_head.module_list)
    offsets = iter(theirs.head.regression_head.module_list)
    modules = []
    for block in our_head():
        module = build_block(block)[0].eval()
        sources = [next(extra)] if block.kind == "ssd.extra" else [next(logits), next(offsets)]
        values = [value for source in sources for value in source.state_dict().values()]
        module.load_state_dict(dict(zip(module.state_dict(), values, strict=True)))
        modules.append((block.kind, module))
    return modules


def test_outputs_equal_torchvisions_with_its_weights(theirs):
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, channels, side, side, generator=generator) for channels, side in MAPS]
    outputs = []
    with torch.no_grad():
        x = maps[0]
        for position, (kind, module) in enumerate(with_their_weights(theirs)):
            x = maps[1] if position == 1 else x
            if kind == "ssd.extra":
                x = module(x)
            else:
                outputs.append(module(x))
        features = list(maps)
        for extra in theirs.backbone.extra:
            features.append(extra(features[-1]))
        expected = theirs.head(features)
    ours = torch.cat(outputs, 1)
    torch.testing.assert_close(ours[..., :-4], expected["cls_logits"])
    torch.testing.assert_close(ours[..., -4:], expected["bbox_regression"])
    assert ours.shape == (2, 3234, CLASSES + 1 + 4)
    assert ours.std() > 0.1


def test_parameters_are_torchvisions(theirs):
    parts = (theirs.backbone.extra, theirs.head)
    assert count(our_head())[0] == sum(p.numel() for part in parts for p in part.parameters())


def test_layers_have_torchvisions_normalisation(theirs):
    norms = {(part.eps, part.momentum) for part in theirs.head.modules() if isinstance(part, nn.BatchNorm2d)}
    ours = build_block(our_head()[0])[0]
    assert {(p.eps, p.momentum) for p in ours.modules() if isinstance(p, nn.BatchNorm2d)} == norms


def test_default_boxes_are_torchvisions(theirs):
    sides = [20, 10, 5, 3, 2, 1]
    image = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    expected = theirs.anchor_generator(image, [torch.zeros(1, 1, side, side) for side in sides])[0] / 320
    ours = default_boxes(sides)
    corners = torch.cat((ours[:, :2] - ours[:, 2:] / 2, ours[:, :2] + ours[:, 2:] / 2), 1)
    torch.testing.assert_close(corners, expected)


def test_offsets_are_those_of_equation_2():
    default = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.5, 0.3, 0.9, 0.7]])
    by_hand = torch.tensor([[10 * (0.7 - 0.5) / 0.2, 0.0, 5 * torch.log(torch.tensor(2.0)), 0.0]])
    torch.testing.assert_close(encode(box, default), by_hand)
    torch.testing.assert_close(decode(by_hand, default), box)


def test_overlap_by_hand():
    first = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]])
    second = torch.tensor([[0.1, 0.0, 0.3, 0.2], [0.2, 0.0, 0.4, 0.2]])
    torch.testing.assert_close(
        intersection_over_union(first, second), torch.tensor([[1 / 3, 0.0], [0.0, 0.0]])
    )


def random_output(seed: int, boxes: int) -> torch.Tensor:
    return torch.randn(1, boxes, CLASSES + 5, generator=torch.Generator().manual_seed(seed)) * 2


@pytest.mark.parametrize("seed", [0, 1])
def test_detections_are_torchvisions(theirs, seed):
    default = default_boxes([4, 2, 1])
    output = random_output(seed, len(default))
    corners = torch.cat((default[:, :2] - default[:, 2:] / 2, default[:, :2] + default[:, 2:] / 2), 1)
    heads = {"bbox_regression": output[..., -4:], "cls_logits": output[..., :-4]}
    expected = theirs.postprocess_detections(heads, [corners * 320], [(320, 320)])[0]
    (ours,) = detections(output, default)
    assert len(ours.scores) == len(expected["scores"]) > 50
    torch.testing.assert_close(ours.scores, expected["scores"])
    assert torch.equal(ours.labels, expected["labels"])
    torch.testing.assert_close(ours.boxes * 320, expected["boxes"], rtol=1e-4, atol=1e-3)


def test_suppression_is_torchvisions_class_by_class():
    generator = torch.Generator().manual_seed(3)
    low = torch.rand(200, 2, generator=generator)
    boxes = torch.cat((low, low + 0.3 * torch.rand(200, 2, generator=generator) + 0.05), 1)
    labels = torch.randint(1, 4, (200,), generator=generator)
    scores = torch.linspace(1, 0, 200)
    expected = batched_nms(boxes, scores, labels, 0.4).sort().values
    assert torch.equal(non_maximum_suppression(boxes, labels, 0.4), expected)
    assert 20 < len(expected) < 190


def test_nothing_is_found_where_every_box_is_background():
    default = default_boxes([2, 1])
    output = torch.zeros(1, len(default), CLASSES + 5)
    output[..., 0] = 20.0
    (found,) = detections(output, default)
    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0

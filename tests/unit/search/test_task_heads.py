"""Heads of detection and segmentation, on backbones and against torchvision's."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.image_list import ImageList
from torchvision.models.segmentation import deeplabv3
from torchvision.models.segmentation._utils import _SimpleSegmentationModel
from torchvision.ops import batched_nms

from search.blocks import boundary_bytes, count, parse_key, peak_activation_bytes
from search.blocks.task_heads import SsdPredict
from search.blocks.timm_networks import TimmNetwork
from search.networks import build_block, build_network, module_of
from search.networks.network import is_head, load_backbone
from search.networks.outputs import (
    decode,
    default_boxes,
    detections,
    encode,
    intersection_over_union,
    levels_of,
    masks,
    non_maximum_suppression,
)
from search.spaces import arch_from_json, get_arch, get_space, list_spaces
from search.spaces.registry import with_task, without_task
from search.spaces.stages import ssdlite_ends
from search.supernet.model.supernet import Supernet
from tests.support.block_checks import seeded
from tests.support.errors import raises

SMALL_MAPS = {"efficientvit-nano", "vit-tokens", "vit-tokens-cifar"}
SPACES = [space.name for space in list_spaces() if space.name not in SMALL_MAPS]


@pytest.mark.parametrize("head", ["ssdlite", "deeplablite"])
@pytest.mark.parametrize("name", SPACES)
def test_every_space_has_detection_and_segmentation_spaces(name, head):
    space = get_space(f"{name}.{head}").with_classes(3)
    arch = space.sample(random.Random(0), space.resolutions[:1])
    assert arch_from_json(arch.to_json()) == arch
    with torch.device("meta"):
        network = build_network(arch.blocks()).eval()
        output = network(torch.zeros(1, 3, arch.resolution, arch.resolution))
    assert sum(p.numel() for p in network.parameters()) == arch.params()
    if head == "ssdlite":
        assert output.shape == (1, len(default_boxes(levels_of(arch.blocks()))), 3 + 1 + 4)
    else:
        assert output.shape == arch.blocks()[-1].output_shape
    assert {block.key for block in arch.blocks()} <= {block.key for block in space.block_specs()}


def test_mobilevit_detects_on_six_maps():
    arch = get_arch("mobilevit-s.ssdlite").with_resolution(320)
    assert levels_of(arch.blocks()) == (20, 10, 5, 3, 2, 1)
    predicted = [key for key in arch.keys() if key.startswith("ssd.predict")]
    assert predicted[0] == "ssd.predict(in=128,boxes=6,classes=80)@20"
    assert predicted[1] == "ssd.predict(in=160,boxes=6,classes=80)@10"


def test_detector_predicts_on_the_stages_maps():
    """Each predictor gives what it gives on its own for the map at its place."""
    arch = get_arch("autovit-xxs-paper.ssdlite3").with_resolution(192)
    network = build_network(arch.blocks()).eval()
    x = network.example_input()
    expected, y = [], x
    with torch.no_grad():
        for name, part in network.named_children():
            if name in ("head_0", "head_1", "head_3", "head_5", "head_7"):
                expected.append(part(y))
            else:
                y = part(y)
        output = network(x)
    assert [part.shape[1] for part in expected] == [6 * side**2 for side in levels_of(arch.blocks())]
    assert torch.equal(output, torch.cat(expected, 1))


def test_costs_count_side_outputs():
    blocks = get_arch("autovit-xxs-paper.ssdlite3").blocks()
    backbone = [block for block in blocks if not block.in_task_head]
    head = [block for block in blocks if block.in_task_head]
    assert count(blocks)[0] == count(backbone)[0] + count(head)[0]
    maps = sum(block.out_elements for block in backbone)
    extra = sum(block.out_elements for block in head if block.kind == "ssd.extra")
    predictions = sum(6 * side**2 for side in levels_of(blocks)[:-1]) * 8
    assert boundary_bytes(blocks) == 4 * (maps + extra + predictions)
    alone = max(block.ops().live_elements(keep_input=True) for block in head if isinstance(block, SsdPredict))
    assert peak_activation_bytes(head) >= 4 * alone
    held = 6 * 16**2 * 8
    assert peak_activation_bytes(backbone, held) == peak_activation_bytes(backbone) + 4 * held


def test_stage_counts_of_a_detection_space_share_maps():
    assert get_space("autovit-nano").stage_counts == (3, 4)
    assert get_space("autovit-nano.ssdlite").stage_counts == (4,)
    assert get_space("autovit-xxs.ssdlite").stage_counts == get_space("autovit-xxs").stage_counts


def test_task_round_trip():
    arch = get_arch("mobilevit-xxs")
    detector = with_task(arch, "detection", 7)
    assert (detector.head, detector.classes) == ("ssdlite", 7)
    assert without_task(detector) == arch
    assert with_task(detector, "segmentation") == get_arch("mobilevit-xxs.deeplablite")
    assert with_task(detector, "classification", 1000) == arch
    assert get_arch("timm:resnet18.ssdlite7@256") == with_task(get_arch("timm:resnet18@256"), "detection", 7)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("timm:mobilenetv3_small_100.ssdlite3@160", [48, 576]),
        ("timm:efficientvit_m0.ssdlite3", [64, 128, 192]),
    ],
)
def test_timm_maps_start_at_stride_16(name, channels):
    arch = get_arch(name)
    (block,) = arch.blocks()
    assert isinstance(block, TimmNetwork)
    assert [b.in_channels for b in block.head_blocks if b.kind == "ssd.predict"][: len(channels)] == channels
    with torch.device("meta"):
        network = build_network(arch.blocks()).eval()
        output = network(torch.zeros(1, 3, arch.resolution, arch.resolution))
    assert output.shape == block.output_shape == (1, len(default_boxes(levels_of(arch.blocks()))), 8)
    assert sum(p.numel() for p in network.parameters()) == arch.params()


@pytest.mark.parametrize(
    ("name", "left"),
    [("mobilevit-xxs.ssdlite3", 7), ("timm:mobilenetv3_small_050.deeplablite3@128", 4)],
)
def test_classifier_weights_load_into_a_backbone(name, left):
    detector = get_arch(name)
    network = build_network(detector.blocks())
    classifier = build_network(without_task(detector).blocks())
    loaded = load_backbone(network, classifier.state_dict())
    assert len(loaded.unused) == left
    own, given = network.state_dict(), classifier.state_dict()
    backbone = [key for key in own if not is_head(key) and not key.endswith("num_batches_tracked")]
    assert len(backbone) == loaded.loaded > 100
    assert all(torch.equal(own[key], given[key.replace("0.backbone.", "0.")]) for key in backbone)


def test_weights_of_another_backbone_are_refused():
    network = build_network(get_arch("mobilevit-xxs.ssdlite3").blocks())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    other = module_of(get_arch("timm:mobilenetv3_small_050@64").blocks()[0])
    with raises("other_backbone"):
        load_backbone(network, other.state_dict())
    wider = build_network(get_arch("mobilevit-xs").blocks())
    with raises("other_backbone"):
        load_backbone(network, wider.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: get_arch("timm:resnet18.ssdlite@32").blocks(), "map_too_small"),
        (lambda: get_arch("timm:resnet18.deeplablite@64").blocks(), "map_too_small"),
        (lambda: get_space("efficientvit-nano.deeplablite"), "map_too_small"),
        (lambda: get_arch("timm:mobilenetv1_075.ssdlite").blocks(), "no_feature_maps"),
        (lambda: get_arch("timm:nosuch.ssdlite").blocks(), "unknown_timm_model"),
        (lambda: get_arch("mobilevit-xxs.ssdheavy"), "unknown_architecture"),
        (lambda: with_task(get_arch("mobilevit-xxs"), "tracking"), "unknown_task"),
        (lambda: with_task(get_arch("mobilevit-xxs"), "detection", head="deeplab"), "unknown_head"),
        (lambda: Supernet(get_space("autovit-nano.ssdlite")), "not_elastic"),
    ],
)
def test_head_that_does_not_fit_is_refused(make, code):
    with raises(code):
        make()


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
    parts = (theirs.backbone.extra, theirs.head)
    assert count(our_head())[0] == sum(p.numel() for part in parts for p in part.parameters())
    assert ours.std() > 0.1


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
    assert torch.equal(non_maximum_suppression(boxes, scores, labels, 0.4), expected)
    assert 20 < len(expected) < 190


def test_background_gives_no_detections():
    default = default_boxes([2, 1])
    output = torch.zeros(1, len(default), CLASSES + 5)
    output[..., 0] = 20.0
    (found,) = detections(output, default)
    assert found.boxes.shape == (0, 4)
    assert len(found.scores) == len(found.labels) == 0


WHOLE = parse_key("deeplab.aspp(in=24,classes=20,mid=256,rate=12)@33")


def theirs_to_ours(theirs: Any) -> list[torch.Tensor]:
    """Tensors of torchvision's head in the order of ours, the joining convolution cut at the pooled branch."""
    aspp, *classifier = theirs
    local, *atrous, pool = aspp.convs
    conv, norm = aspp.project[0], aspp.project[1]
    tensors = [t for part in (local, *atrous, pool) for t in part.state_dict().values()]
    tensors += [conv.weight[:, : 4 * 256], conv.weight[:, 4 * 256 :], *norm.state_dict().values()]
    return tensors + [t for part in classifier for t in part.state_dict().values()]


def test_whole_head_equals_torchvisions():
    theirs = seeded(deeplabv3.DeepLabHead(24, 21).eval())
    ours = build_block(WHOLE)[0].eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs_to_ours(theirs), strict=True)))
    assert sum(p.numel() for p in theirs.parameters()) == WHOLE.params()
    x = torch.randn(2, 24, 33, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_lite_head_is_deeplab_without_atrous_branches():
    spec = parse_key("deeplab.lite(in=24,classes=20,mid=32)@9")
    ours = seeded(build_block(spec)[0].eval())
    pooled = deeplabv3.ASPPPooling(24, 32).eval()
    pooled.load_state_dict(dict(zip(pooled.state_dict(), ours.pool.state_dict().values(), strict=True)))
    whole = deeplabv3.ASPP(24, [], 32).eval()
    whole.convs[-1] = pooled
    values = [*ours.local.state_dict().values()]
    whole.convs[0].load_state_dict(dict(zip(whole.convs[0].state_dict(), values, strict=True)))
    join: Any = ours.join
    with torch.no_grad():
        whole.project[0].weight.copy_(torch.cat((join.of_map.weight, join.of_pooled.weight), 1))
        whole.project[1].load_state_dict(join.rest[0].state_dict())
        x = torch.randn(1, 24, 9, 9, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours(x), ours.classifier(whole(x)), rtol=1e-4, atol=1e-4)


def test_masks_are_those_of_torchvisions_model():
    logits = torch.randn(2, 21, 8, 8, generator=torch.Generator().manual_seed(0))

    class Backbone(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": logits}

    theirs = _SimpleSegmentationModel(Backbone(), nn.Identity())(torch.zeros(2, 3, 100, 120))["out"]
    assert torch.equal(masks(logits, (100, 120)), theirs.argmax(1))
    assert len(masks(logits, (100, 120)).unique()) > 5


def test_layers_have_torchvisions_normalisation(theirs):
    norms = {(part.eps, part.momentum) for part in theirs.head.modules() if isinstance(part, nn.BatchNorm2d)}
    ours = build_block(our_head()[0])[0]
    assert {(p.eps, p.momentum) for p in ours.modules() if isinstance(p, nn.BatchNorm2d)} == norms

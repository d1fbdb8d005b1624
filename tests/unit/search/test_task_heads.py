"""Heads of detection and segmentation on backbones of spaces and of timm: names, blocks, weights, refusals."""

import random
import subprocess
import sys

import pytest
import torch

from luts.format.errors import UsageError
from search.blocks import boundary_bytes, count, peak_activation_bytes
from search.blocks.task_heads import SsdPredict
from search.blocks.timm_networks import TimmTaskNetwork
from search.networks import build_network, module_of
from search.networks.network import is_head, load_backbone
from search.networks.outputs import default_boxes, levels_of
from search.spaces import arch_from_json, get_arch, get_space, list_spaces
from search.spaces.registry import task_of, with_task, without_task
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises

SPACES = [space.name for space in list_spaces() if space.name != "efficientvit-nano"]


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
    alone = max(block.live_elements_with_input() for block in head if isinstance(block, SsdPredict))
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
    assert (task_of(arch), task_of(detector), detector.classes) == ("classification", "detection", 7)
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
    assert isinstance(block, TimmTaskNetwork)
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
    ("name", "code"),
    [
        ("timm:resnet18.ssdlite@32", "map_too_small"),
        ("timm:resnet18.deeplablite@64", "map_too_small"),
        ("timm:mobilenetv1_075.ssdlite", "no_feature_maps"),
        ("timm:nosuch.ssdlite", "unknown_timm_model"),
        ("mobilevit-xxs.ssdheavy", "unknown_architecture"),
    ],
)
def test_head_that_does_not_fit_is_refused(name, code):
    with raises(code):
        get_arch(name).blocks()


def test_unknown_heads_and_tasks_are_refused():
    with raises("map_too_small"):
        get_space("efficientvit-nano.deeplablite")
    with raises("unknown_task"):
        with_task(get_arch("mobilevit-xxs"), "tracking")
    with raises("unknown_head"):
        with_task(get_arch("mobilevit-xxs"), "detection", head="deeplab")


def test_importing_spaces_registers_task_heads():
    code = "from search.spaces import get_space; print(get_space('autovit-nano.ssdlite').name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "autovit-nano.ssdlite", done.stderr


def test_detection_space_has_no_supernet():
    with pytest.raises(
        UsageError, match=r"autovit-nano\.ssdlite has no supernet: ssd\.predict is not elastic"
    ):
        Supernet(get_space("autovit-nano.ssdlite"))

"""Accuracy of the exported program over held-out images."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from orchestrator.tasks.evaluate import exported_scores
from orchestrator.tasks.export import Lowering
from orchestrator.tasks.progress import silent
from orchestrator.tasks.quantization import Calibration
from search.spaces import Arch, get_arch, get_space
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from search.supernet.model.supernet import Supernet
from tests.support.errors import raises
from tests.support.slow import mostly_slow


@dataclass(frozen=True)
class OneNetwork:
    """What is asked of an InheritedAccuracy."""

    data: Any
    held_out: Any
    module: Any

    def network(self, _: object) -> Any:
        return self.module


def small_nano() -> Arch:
    return min(itertools.islice(get_space("autovit-nano"), 200), key=lambda each: each.params())


def timm_network() -> Arch:
    return get_arch("timm:mobilenetv3_small_050@32")


@pytest.mark.parametrize("given", mostly_slow([small_nano, timm_network], kept=[small_nano]))
def test_the_program_is_judged_on_the_images_that_are_held_out(given: Callable[[], Arch]) -> None:
    arch = given().with_classes(10)
    data = ImageData(open_source("digits"))
    network = Supernet(get_space(arch.space).with_classes(10)).extract(arch)
    with torch.no_grad():
        network.train()(data.batch(data.split.train[:64], arch.resolution)[0])  # statistics of BN
    network.eval()
    held_out = data.split.search[:12]
    evaluator: Any = OneNetwork(data, held_out, network)
    images, labels = data.batch(held_out, arch.resolution)
    with torch.no_grad():
        best = network(images).topk(5, 1).indices
    right = best == labels[:, None]
    scores = exported_scores(evaluator, arch, Lowering(), None, silent)
    assert scores.top1 == pytest.approx(float(right[:, 0].float().mean()))
    assert scores.top5 == pytest.approx(float(right.any(1).float().mean()))
    for lowering, calibration, code in (
        (Lowering("onnx"), None, "unsupported_runtime"),
        (Lowering(precision="fp16"), Calibration("digits"), "calibration_without_int8"),
    ):
        with raises(code):
            exported_scores(evaluator, arch, lowering, calibration, silent)

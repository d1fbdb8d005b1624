"""Detectors and segmentation networks as they are exported: the program's figures are those of PyTorch."""

import pytest

from orchestrator.tasks.compare import compare_networks
from orchestrator.tasks.evaluate import evaluate
from orchestrator.tasks.evaluation_options import CompareOptions, EvalOptions
from search.dense.training import load_dense
from tests.support.dense_world import make_world

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("dense"))


def test_a_detector_has_the_figures_of_pytorch(world):
    exported = evaluate(EvalOptions(supernet=world / "detection", precision="fp32"))
    plain = evaluate(EvalOptions(supernet=world / "detection", on="cpu"))
    assert exported.metrics == pytest.approx(plain.metrics, abs=2e-3)
    assert "exported" in exported.facts["judged"]


@pytest.mark.slow
def test_networks_are_compared_as_exported(world):
    name = f"{world / 'arch.json'}:{world / 'segmentation'}"
    compared = compare_networks(CompareOptions(networks=(name,), data=f"coco:{world / 'set'}"))
    (row,) = compared.rows
    assert row["miou"] == pytest.approx(row["pytorch_miou"], abs=2e-3)
    assert row["params"] == load_dense(world / "segmentation")[1].network.params()
    assert compared.data["synthetic"]
    assert "SYNTHETIC" in compared.data["source"]

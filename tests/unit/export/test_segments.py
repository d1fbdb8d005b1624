"""Segments of a network with an exit: what they compute, and their export with the parity check."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from orchestrator.accuracy.program import ProgramClassifier
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.parity import run_pte
from orchestrator.export.lower.source import build_module
from search.blocks import parse_keys
from search.networks import build_network
from search.networks.network import build_segment
from tests.support.errors import raises
from tests.support.slow import mostly_slow

STAGES = (
    "conv(in=3,out=8,k=3,s=2)@32",
    "mbconv(in=8,out=16,k=3,e=2,s=2)@16",
    "mvit.shell(c=16,d=16,patch=2)@8",
    "mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8",
)
EXIT = "head.fc(in=16,classes=10)@8"
REST = ("mbconv(in=16,out=24,k=3,e=2,s=2)@8", "head.fc(in=24,classes=10)@4")


def test_the_segments_compute_the_exit_and_the_network():
    whole = build_network(parse_keys((*STAGES, *REST))).eval()
    exit_ = build_network(parse_keys((*STAGES, EXIT))).eval()
    exit_.load_state_dict(
        whole.state_dict() | {n: x for n, x in exit_.state_dict().items() if n[0] == "3"}, strict=False
    )
    prefix = build_segment(parse_keys((*STAGES, EXIT)), "prefix").eval()
    prefix.load_state_dict(exit_.state_dict())
    tail = build_segment(parse_keys(REST), "tail").eval()
    tail.load_state_dict({f"{int(n[0]) - 3}{n[1:]}": x for n, x in whole.state_dict().items() if n[0] >= "3"})
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, features = prefix(x)
        assert torch.equal(logits, exit_(x))
        assert torch.equal(tail(features), whole(x))


@pytest.mark.parametrize("precision", mostly_slow(["fp32", "fp16", "int8"], kept=["fp32"]))
def test_segments_are_exported_with_the_parity_check(tmp_path, precision):
    cache = ArtifactCache(tmp_path)
    prefix = ExportSpec((*STAGES, EXIT), segment="prefix", precision=precision)
    tail = ExportSpec(REST, segment="tail", precision=precision)
    done = [export_spec(spec, cache) for spec in (prefix, tail)]
    assert all(0 <= each.report.max_relative_error < each.report.tolerance for each in done)
    _, (image,) = build_module(prefix)
    logits, features = run_pte(done[0].path.read_bytes(), (image,))
    assert (logits.shape, features.shape) == ((1, 10), (1, 16, 8, 8))
    (end,) = run_pte(done[1].path.read_bytes(), (features,))
    module, _ = build_module(tail)
    with torch.no_grad():
        expected = module(features)
    assert (end - expected).abs().max() <= done[1].report.tolerance * expected.abs().max()


def test_a_segment_of_core_ml_has_both_outputs(tmp_path):
    spec = ExportSpec((*STAGES, EXIT), segment="prefix", runtime="coreml")
    assert export_spec(spec, ArtifactCache(tmp_path)).report.max_relative_error is not None


def test_a_tail_classifies_images_after_its_prefix_alone(tmp_path):
    cache, image = (
        ArtifactCache(tmp_path),
        np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32),
    )
    whole = ExportSpec((*STAGES, EXIT))
    specs = (whole, replace(whole, segment="prefix"), ExportSpec(REST, segment="tail"))
    network, prefix, tail = (export_spec(spec, cache).path for spec in specs)
    classifier = ProgramClassifier(tail, prefix)
    assert (classifier.side, classifier.outputs) == (32, 10)
    logits, features = run_pte(prefix.read_bytes(), (torch.from_numpy(image),))
    (expected,) = run_pte(tail.read_bytes(), (features,))
    assert classifier.logits(image) == pytest.approx(expected.numpy(), abs=1e-5)
    assert ProgramClassifier(prefix).logits(image) == pytest.approx(logits.numpy(), abs=1e-5)
    with raises("wrong_model_shape"):
        ProgramClassifier(tail, network)
    for file, before in ((tail, None), (prefix, prefix)):
        with raises("wrong_model_shape"):
            ProgramClassifier(file, before)


def test_segments_are_other_models_than_networks():
    whole = ExportSpec((*STAGES, EXIT))
    assert replace(whole, segment="prefix").cache_key != whole.cache_key
    assert replace(whole, segment="prefix").name.startswith("prefix ")
    assert whole.reusable
    assert not replace(whole, segment="prefix").reusable


def test_a_tail_is_not_a_network_of_images():
    with raises("blocks_do_not_fit"):
        ExportSpec(REST)
    for blocks, segment in ((REST, "middle"), (REST[:1], "tail")):
        with raises("bad_spec"):
            ExportSpec(blocks, segment=segment)

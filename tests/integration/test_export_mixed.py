"""Mixed precision and fp16 for XNNPACK: what of a file is int8, half or fp32; and which blocks int8 costs most."""

from pathlib import Path

import numpy as np
import pytest
import torch

from luts.format.errors import UsageError
from orchestrator.accuracy.network import SimulatedInt8
from orchestrator.accuracy.predictions import ImageSet
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.source import build_module, places_of
from search.supernet.data.sources import open_source

KEYS = (
    "conv(in=3,out=8,k=3,s=2)@16",
    "mbconv(in=8,out=8,k=3,e=2,s=1)@8",
    "mvit.shell(c=8,d=32,patch=2)@8",
    "mvit.layer(d=32,heads=1,head_dim=32,ratio=2,patch=2)@8",
    "head.fc(in=8,classes=10)@8",
)
PLACES = ("0", "1", "2", "3")


def linear_weights(spec: ExportSpec) -> dict[str, np.ndarray]:
    module, _ = build_module(spec)
    return {name: p.detach().numpy() for name, p in module.named_parameters() if p.ndim == 2}


def as_int8(weight: np.ndarray) -> bytes:
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127.0
    return np.rint(weight / scale).astype(np.int8).tobytes()


def test_what_a_mix_names_is_in_the_file_as_fp32_and_the_rest_as_int8(tmp_path: Path) -> None:
    spec = ExportSpec(KEYS, precision="mixed", fp32=("2",))
    artifact = export_spec(spec, ArtifactCache(tmp_path))
    assert (artifact.report.delegates, artifact.report.operators) == (1, ())
    data = artifact.path.read_bytes()
    found = {name: (w.tobytes() in data, as_int8(w) in data) for name, w in linear_weights(spec).items()}
    assert found.pop("3.fc.weight") == (False, True)
    assert len(found) == 4
    assert set(found.values()) == {(True, False)}, "the layer inside of the shell stays with it"
    assert b"int8 but for 2" in data


def test_a_block_that_there_is_not_is_named_with_those_that_there_are(tmp_path: Path) -> None:
    spec = ExportSpec(KEYS, precision="mixed", fp32=("7",))
    with pytest.raises(UsageError, match="has no block '7' to keep in fp32; it has 0, 1, 2, 3"):
        export_spec(spec, ArtifactCache(tmp_path))


def test_a_network_in_fp16_is_one_delegate_between_two_conversions(tmp_path: Path) -> None:
    spec = ExportSpec(KEYS, precision="fp16")
    artifact = export_spec(spec, ArtifactCache(tmp_path))
    assert artifact.report.delegates == 1
    assert artifact.report.operators == (("dim_order_ops._to_dim_order_copy.default", 2),)
    assert artifact.report.max_relative_error is not None
    assert 1e-5 < artifact.report.max_relative_error < 0.01
    data = artifact.path.read_bytes()
    for name, weight in linear_weights(spec).items():
        assert weight.astype(np.float16).tobytes() in data, name
        assert weight.tobytes() not in data, name


def test_parts_of_a_network_are_its_blocks_or_the_stages_of_timm() -> None:
    module, _ = build_module(ExportSpec(KEYS))
    assert places_of(module) == PLACES
    timm, _ = build_module(ExportSpec(module="timm:mobilenetv3_small_050@32"))
    assert places_of(timm) == ("conv_stem", *(f"blocks.{n}" for n in range(6)), "conv_head", "classifier")


def test_int8_costs_most_where_one_channel_dwarfs_the_others() -> None:
    keys = (KEYS[0], KEYS[1], KEYS[4])
    module, _ = build_module(ExportSpec(keys))
    norm = next(part for part in module[1].modules() if isinstance(part, torch.nn.BatchNorm2d))
    depthwise = next(part for part in module[1].modules() if getattr(part, "groups", 1) > 1)
    with torch.no_grad():
        norm.bias[0] = 1000.0  # of the expansion, whose channel 0 the next convolution leaves out
        depthwise.weight[0] = 0.0
    source = open_source("digits")
    images = ImageSet("digits", source.digest, np.arange(40))
    ranges = torch.from_numpy(next(images.batches(16, 0, 40, 40)))
    simulated = SimulatedInt8(module, ranges, images)
    with torch.no_grad():
        exact = module(ranges).numpy()
    assert simulated.logits(None) == pytest.approx(exact, abs=1e-4)
    errors = [np.abs(simulated.logits(tuple({"0", "1", "2"} - {place})) - exact).mean() for place in "012"]
    assert errors[1] > 3 * max(errors[0], errors[2])
    assert min(errors) > 0

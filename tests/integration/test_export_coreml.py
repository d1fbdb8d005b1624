import itertools
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.build import export_spec
from orchestrator.export.lower.coreml import UnknownOperatorError, check_program, convert_to_mlpackage
from orchestrator.export.lower.parity import check_parity
from orchestrator.export.lower.source import build_module
from search.blocks import parse_key
from search.spaces import get_space
from tests.support.slow import mostly_slow

NANO = (
    "conv(in=3,out=8,k=3,s=2)@64",
    "mbconv(in=8,out=16,k=3,e=1,s=2)@32",
    "mbconv(in=16,out=32,k=3,e=2,s=2)@16",
    "mvit.shell(c=32,d=32,patch=2)@8",
    "mvit.layer(d=32,heads=2,head_dim=16,ratio=2,patch=2)@8",
    "head.fc(in=32,classes=10)@8",
)


def test_nano_package_has_equal_bytes_each_time(tmp_path: Path) -> None:
    spec = ExportSpec(NANO, runtime="coreml")
    first = export_spec(spec, ArtifactCache(tmp_path / "a"))
    second = export_spec(spec, ArtifactCache(tmp_path / "b"))
    assert first.sha256 == second.sha256
    assert first.report.max_relative_error is not None
    assert first.report.max_relative_error < 1e-3
    operators = dict(first.report.operators)
    assert operators["layer_norm"] == 3
    assert operators["matmul"] == 2
    assert "batch_norm" not in operators
    with zipfile.ZipFile(first.path) as archive:
        assert "model.mlpackage/Manifest.json" in archive.namelist()


def spec_of(package: Path) -> Any:
    """The model's protobuf."""
    import coremltools

    return coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()


@pytest.mark.parametrize(
    ("target", "precision", "version"),
    [("iOS15", "fp16", 6), ("iOS18", "fp16", 9), ("iOS17", "int8", 8), ("iOS18", "int8", 9)],
)
def test_a_package_is_no_newer_than_its_target(
    tmp_path: Path, target: str, precision: str, version: int
) -> None:
    module, inputs = build_module(ExportSpec(NANO[:1]))
    convert_to_mlpackage(module, inputs, tmp_path / "m.mlpackage", precision, target)
    assert spec_of(tmp_path / "m.mlpackage").specificationVersion == version


def test_an_int8_network_has_int8_weights_and_activations_around_every_matrix(tmp_path: Path) -> None:
    packages = [tmp_path / name / "m.mlpackage" for name in "ab"]
    for package in packages:
        module, inputs = build_module(ExportSpec(NANO))
        program = convert_to_mlpackage(module, inputs, package, "int8", "iOS17")
    operators = dict(program.operators)
    matrices = operators["conv"] + operators["linear"]
    assert matrices == 15
    assert operators["constexpr_affine_dequantize"] == matrices
    assert operators["quantize"] >= matrices
    assert program.computed is not None
    parity = check_parity(program.computed, module, inputs, tolerance=0.05)
    assert parity.max_relative_error > 1e-3
    weights = [package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin" for package in packages]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    parameters = sum(p.numel() for p in module.parameters())
    assert weights[0].stat().st_size < 1.6 * parameters
    assert digest(packages[0] / "Manifest.json") == digest(packages[1] / "Manifest.json")


def test_an_int8_package_whose_activations_are_not_is_refused() -> None:
    import coremltools

    module, inputs = build_module(ExportSpec(NANO[:1]))
    model = coremltools.convert(
        torch.jit.trace(module, inputs),
        inputs=[coremltools.TensorType(shape=inputs[0].shape)],
        convert_to="mlprogram",
        minimum_deployment_target=coremltools.target.iOS17,
        skip_model_load=True,
    )
    config = coremltools.optimize.coreml.OpLinearQuantizerConfig(weight_threshold=0)
    light = coremltools.optimize.coreml.linear_quantize_weights(
        model, coremltools.optimize.coreml.OptimizationConfig(config)
    )
    with pytest.raises(InvalidArtifactError, match="activation that is not int8"):
        check_program(light, "int8", inputs, (module(*inputs),))


TRUNK = (
    "conv(in=3,out=8,k=3,s=2)@56",
    "mbconv(in=8,out=16,k=3,e=2,s=2)@28",
    "mbconv(in=16,out=32,k=3,e=2,s=2)@14",
    "mvit.shell(c=32,d=32,patch=2)@7",
    "mvit.layer(d=32,heads=2,head_dim=16,ratio=2,patch=2)@7",
)
"""The last map is odd, as at 224 px, and padded before the unfold."""

HEADS = ("head.fc(in=32,classes=10)@7", "head.mbpool(in=32,classes=10)@7")


def test_trunk_and_heads_hold_every_kind_of_block() -> None:
    kinds = {spec.kind for spec in get_space("autovit-xxs").block_specs((224,))}
    assert {parse_key(key).kind for key in (*TRUNK, *HEADS)} == kinds


@pytest.mark.parametrize(
    ("head", "precision"),
    mostly_slow(
        itertools.product(HEADS, ["fp32", "fp16", "int8"]),
        kept=[(HEADS[0], "fp32"), (HEADS[1], "fp16"), (HEADS[1], "int8")],
    ),
)
def test_every_kind_of_block_computes_what_pytorch_computes(
    head: str, precision: str, tmp_path: Path
) -> None:
    module, inputs = build_module(ExportSpec((*TRUNK, head)))
    target = "iOS17" if precision == "int8" else "iOS16"
    program = convert_to_mlpackage(module, inputs, tmp_path / "m.mlpackage", precision, target)
    assert program.computed is not None
    check_parity(program.computed, module, inputs, {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.1}[precision])


def test_an_operator_without_evaluation_leaves_parity_open_but_stops_int8(tmp_path: Path) -> None:
    class Tangent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x)

    program = convert_to_mlpackage(Tangent().eval(), (torch.ones(2, 2),), tmp_path / "m.mlpackage")
    assert program.computed is None
    with pytest.raises(UnknownOperatorError, match="tanh"):
        convert_to_mlpackage(Tangent().eval(), (torch.ones(2, 2),), tmp_path / "n.mlpackage", "int8", "iOS17")
    assert not (tmp_path / "n.mlpackage").exists()


def test_an_unsupported_operator_is_named_in_one_line(tmp_path: Path) -> None:
    class Lgamma(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.lgamma(x)

    with pytest.raises(BlocktimeError, match="lgamma") as caught:
        convert_to_mlpackage(Lgamma().eval(), (torch.ones(2, 2),), tmp_path / "m.mlpackage")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.mlpackage").exists()


def test_another_precision_or_shape_is_refused() -> None:
    import coremltools

    module, inputs = build_module(ExportSpec(NANO[:1]))
    model = coremltools.convert(
        torch.jit.trace(module, inputs),
        inputs=[coremltools.TensorType(shape=inputs[0].shape)],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )
    outputs = (module(*inputs),)
    assert dict(check_program(model, "fp32", inputs, outputs))["conv"] == 1
    with pytest.raises(InvalidArtifactError, match="computes in fp32"):
        check_program(model, "fp16", inputs, outputs)
    with pytest.raises(InvalidArtifactError, match="gives"):
        check_program(model, "fp32", inputs, (outputs[0][:, :4],))

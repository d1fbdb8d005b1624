from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from luts.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export import ArtifactCache, ExportSpec, block_specs_for
from orchestrator.export.build import export_spec
from orchestrator.export.coreml import check_program, convert_to_mlpackage
from orchestrator.export.source import build_module
from search.blocks import parse_key
from search.spaces import get_space

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
    assert first.report.max_abs_error is None
    operators = dict(first.report.operators)
    assert operators["layer_norm"] == 3
    assert operators["matmul"] == 2
    assert "batch_norm" not in operators
    assert (first.path / "Manifest.json").is_file()


@pytest.mark.parametrize("target", ["iOS15", "iOS18"])
def test_a_package_is_no_newer_than_its_target(tmp_path: Path, target: str) -> None:
    import coremltools

    module, inputs = build_module(ExportSpec(NANO[:1]))
    convert_to_mlpackage(module, inputs, tmp_path / "m.mlpackage", "fp16", target)
    loaded = coremltools.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)
    assert loaded.get_spec().specificationVersion == {"iOS15": 6, "iOS18": 9}[target]


def kinds() -> dict[str, ExportSpec]:
    blocks = block_specs_for(get_space("autovit-xxs"), (224,), runtime="coreml", precision="fp32")
    return {parse_key(spec.blocks[0]).kind: spec for spec in blocks}


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_of_block(kind: str, tmp_path: Path) -> None:
    module, inputs = build_module(kinds()[kind])
    program = convert_to_mlpackage(module, inputs, tmp_path / "m.mlpackage", "fp32")
    with torch.no_grad():
        assert program.outputs == (tuple(module(*inputs).shape),)


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
    assert check_program(model, "fp32", inputs, outputs).outputs == ((1, 8, 32, 32),)
    with pytest.raises(InvalidArtifactError, match="computes in fp32"):
        check_program(model, "fp16", inputs, outputs)
    with pytest.raises(InvalidArtifactError, match="gives"):
        check_program(model, "fp32", inputs, (outputs[0][:, :4],))

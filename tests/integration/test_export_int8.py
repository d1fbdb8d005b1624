"""Static int8 for XNNPACK: one delegate, int8 weights in the file, the same bytes in every process."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.export import Artifact, ArtifactCache, ExportSpec, export_many
from orchestrator.export.build import export_spec
from orchestrator.export.lower.source import build_module

SPEC = ExportSpec(
    (
        "conv(in=3,out=16,k=3,s=2)@16",
        "mvit.shell(c=16,d=96,patch=2)@8",
        "mvit.layer(d=96,heads=3,head_dim=32,ratio=2,patch=2)@8",
        "head.fc(in=16,classes=10)@8",
    ),
    precision="int8",
)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export_spec(SPEC, ArtifactCache(tmp_path_factory.mktemp("int8")))


def test_a_network_is_one_delegate_and_near_pytorch(artifact: Artifact) -> None:
    assert (artifact.report.delegates, artifact.report.operators) == (1, ())
    assert artifact.report.max_relative_error is not None
    assert 1e-4 < artifact.report.max_relative_error < 0.1


def test_every_matrix_of_weights_is_in_the_file_as_int8(artifact: Artifact) -> None:
    data = artifact.path.read_bytes()
    module, _ = build_module(SPEC)
    matrices = {name: p.detach().numpy() for name, p in module.named_parameters() if p.ndim == 2}
    assert len(matrices) == 5
    for name, weight in matrices.items():
        scale = np.abs(weight).max(axis=1, keepdims=True) / 127.0
        assert np.rint(weight / scale).astype(np.int8).tobytes() in data, name
        assert weight.tobytes() not in data, name


def test_another_process_writes_the_same_bytes(artifact: Artifact, tmp_path: Path) -> None:
    (again,) = export_many([SPEC], cache=ArtifactCache(tmp_path), workers=1)
    assert again.sha256 == artifact.sha256

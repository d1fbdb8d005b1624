"""Static int8 for XNNPACK: one delegate, int8 weights in the file, the same bytes in every process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchestrator.export import Artifact, ArtifactCache, ExportSpec, export_many
from orchestrator.export.build import export_module, export_spec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.source import build_module
from tests.support.errors import raises

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


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(artifact: Artifact, tmp_path: Path) -> None:
    (again,) = export_many([SPEC], cache=ArtifactCache(tmp_path), workers=1)
    assert again.sha256 == artifact.sha256


class Padded(nn.Module):
    """A pool that counts zeros, which becomes padding and a pool, before a layer with a range of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.layer = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.layer(functional.avg_pool2d(self.convolution(image), 3, 2, 1))
        return result


class Subsampled(nn.Module):
    """A layer for tokens, and another for every other one of their map, as in LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.every, self.other = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.before(tokens)
        other = x.view(1, 8, 8, 8)[:, ::2, ::2].reshape(1, -1, 8)
        return torch.cat([self.every(x), self.other(other)], 1).mean(1)  # a mean that is written otherwise


@pytest.mark.parametrize(("module", "shape"), [(Padded(), (1, 3, 8, 8)), (Subsampled(), (1, 64, 8))])
def test_what_only_moves_elements_keeps_their_scale(
    module: nn.Module, shape: tuple[int, ...], tmp_path: Path
) -> None:
    """XNNPACK refuses programs in which it has another."""
    torch.manual_seed(0)
    report = export_module(module.eval(), (torch.randn(shape),), tmp_path / "a.pte", precision="int8")
    assert report.made == "lowered"
    assert report.max_relative_error is not None
    assert report.max_relative_error < 0.1


def test_what_executorch_refuses_by_a_bare_exception_is_one_line() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y = functional.conv2d(x, torch.ones(4, 3, 1, 1))
            return y + y.mean()

    with raises("unsupported_operator") as caught:
        lower_to_executorch(Centred().eval(), (torch.randn(1, 3, 8, 8),), precision="int8")
    assert "0-dim" in str(caught.value)

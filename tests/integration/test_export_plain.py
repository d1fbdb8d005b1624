"""A network that the rewrites break is lowered without them, and says so."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.rewrite import LinearLayerNorm

LAYER = ExportSpec(("mvit.layer(d=16,heads=1,head_dim=16,ratio=1,patch=2)@4",))
NETWORK = ExportSpec(
    (
        "conv(in=3,out=16,k=3,s=2)@8",
        "mvit.shell(c=16,d=16,patch=2)@4",
        *LAYER.blocks,
        "head.fc(in=16,classes=10)@4",
    )
)


@pytest.fixture
def wrong_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: LinearLayerNorm, x: Tensor) -> Tensor:
        return x - x.amax()

    monkeypatch.setattr(LinearLayerNorm, "forward", forward)


@pytest.mark.usefixtures("wrong_norm")
@pytest.mark.parametrize("spec", [LAYER, NETWORK], ids=["one block", "network"])
def test_what_a_rewrite_breaks_is_lowered_without_it(spec: ExportSpec, tmp_path: Path) -> None:
    report = export_spec(spec, ArtifactCache(tmp_path)).report
    assert report.made == "plain"
    assert "differs from PyTorch" in report.plain_because
    assert dict(report.operators)["aten.native_layer_norm.default"] > 0
    assert report.max_relative_error is not None
    assert report.max_relative_error < 1e-5


def test_what_is_wrong_without_rewrites_too_is_refused(tmp_path: Path) -> None:
    attempts = []

    def run(data: bytes, inputs: Sequence[Tensor]) -> list[Tensor]:
        attempts.append(data)
        return [torch.full_like(inputs[0], 1000.0)]

    with pytest.raises(InvalidArtifactError, match="differs from PyTorch"):
        export_spec(LAYER, ArtifactCache(tmp_path), run=run)
    assert len(attempts) == 2
    assert attempts[0] != attempts[1]

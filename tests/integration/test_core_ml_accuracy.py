"""A Core ML package as a classifier off the Mac: the file's own program and weights, evaluated in PyTorch."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch

from luts.format.errors import InvalidArtifactError
from orchestrator.accuracy.predictions import ImageSet, Predictions
from orchestrator.accuracy.program import PackageClassifier, predict_with_program
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.artifacts.artifact import deliver
from orchestrator.export.build import export_spec
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.quantization import Calibration, calibrated
from search.supernet.data.sources import open_source

KEYS = ("conv(in=3,out=8,k=3,s=2)@16", "mbconv(in=8,out=8,k=3,e=2,s=1)@8", "head.fc(in=8,classes=10)@8")


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    spec = calibrated(
        ExportSpec(KEYS, runtime="coreml", precision="int8"), Calibration("digits", images=8), folder
    )
    return spec, export_spec(spec, ArtifactCache(folder / "cache"))


def test_a_package_read_from_its_file_computes_what_was_converted(int8, tmp_path) -> None:
    spec, artifact = int8
    images = ImageSet("digits", open_source("digits").digest, np.arange(8))
    classifier = PackageClassifier(artifact.path)
    assert (classifier.side, classifier.outputs) == (16, 10)
    module, _ = build_module(spec)
    (pixels,) = images.batches(16, 0, 8, 8)
    with torch.no_grad():
        exact = module(torch.from_numpy(pixels)).numpy()
    logits = np.concatenate([classifier.logits(pixels[i : i + 1]) for i in range(8)])
    error = np.abs(logits - exact).max() / np.abs(exact).max()
    assert 1e-3 < error < 0.1, "int8 rounds, and no more than that"
    assert classifier.logits(pixels[:1]) == pytest.approx(logits[:1]), "kept constants stay what they are"
    folder = deliver(artifact.path, tmp_path / "net.mlpackage")
    guesses = predict_with_program(folder, images)
    assert guesses.outputs == 10
    assert (guesses.first == Predictions.of_logits(logits).first).all()


def test_a_damaged_package_is_one_line(int8, tmp_path) -> None:
    _, artifact = int8
    folder = deliver(artifact.path, tmp_path / "net.mlpackage")
    weights = next(folder.rglob("weight.bin"))
    weights.write_bytes(b"")
    with pytest.raises(InvalidArtifactError, match=r"net\.mlpackage: no ML program can be read"):
        PackageClassifier(folder)
    broken = tmp_path / "b.mlpackage.zip"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("x.mlpackage/Manifest.json", "{}")
    with pytest.raises(InvalidArtifactError, match="no ML program can be read"):
        PackageClassifier(broken)

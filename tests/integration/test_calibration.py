"""int8 calibrated on images: the ranges are theirs, and the choice is in the artifact's identity."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.build import export_spec
from orchestrator.export.lower.calibration import calibration_inputs, read_images
from orchestrator.export.lower.coreml import convert_to_mlpackage
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import run_pte
from orchestrator.export.lower.quantize import MiddleObserver
from orchestrator.tasks.quantization import Calibration, calibrated
from search.supernet.data.images import ImageData
from search.supernet.data.sources import open_source
from tests.support.bench import invoke

KEYS = ("conv(in=3,out=8,k=3,s=2)@16", "head.fc(in=8,classes=10)@8")
SPEC = ExportSpec(KEYS, precision="int8")
DIGITS = Calibration("digits", images=6, seed=1)


@pytest.fixture(scope="module")
def bright() -> tuple[torch.nn.Module, torch.Tensor]:
    """A convolution, and images ten times as bright as random inputs are."""
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 8, 3).eval(), 10 * torch.randn(4, 3, 16, 16)


@torch.no_grad()
def relative_error(output: torch.Tensor, module: torch.nn.Module, image: torch.Tensor) -> float:
    expected = module(image)
    return float((output - expected).abs().max() / expected.abs().max())


def test_ranges_of_a_program_are_those_of_its_images(bright) -> None:
    module, images = bright
    example = (torch.randn(1, 3, 16, 16),)
    errors = []
    for given in (images, None):
        lowered = lower_to_executorch(module, example, precision="int8", images=given)
        (output,) = run_pte(lowered.data, (images[:1],))
        errors.append(relative_error(output, module, images[:1]))
    assert errors[0] < 0.1, "but for the ends that are cut off"
    assert errors[1] > 0.3, "random inputs know nothing of bright images, which are clipped"


def test_ranges_of_a_core_ml_package_are_those_of_its_images(bright, tmp_path) -> None:
    module, images = bright
    faint = images[:1] / 100
    errors = []
    for name, given in (("random", None), ("images", images)):
        program = convert_to_mlpackage(
            module, (faint,), tmp_path / f"{name}.mlpackage", "int8", "iOS17", given
        )
        errors.append(relative_error(program.computed[0], module, faint))
    assert errors[0] < 0.02
    assert errors[1] > 0.1, "steps of a hundredth of bright images are coarse for a faint one"


def spoilt(images: torch.Tensor) -> torch.Tensor:
    """The same images, but one pixel of all is a thousand times as bright."""
    spoilt = images.clone()
    spoilt[-1, 0, 8, 8] *= 1000
    return spoilt


def test_one_pixel_does_not_decide_the_range_of_a_program(bright) -> None:
    module, images = bright
    lowered = lower_to_executorch(module, (images[:1],), precision="int8", images=spoilt(images))
    (output,) = run_pte(lowered.data, (images[:1],))
    assert relative_error(output, module, images[:1]) < 0.15, (
        "one step for all would be wider than all values"
    )


def test_one_pixel_does_not_decide_the_range_of_a_core_ml_package(bright, tmp_path) -> None:
    module, images = bright
    program = convert_to_mlpackage(
        module, (images[:1],), tmp_path / "m.mlpackage", "int8", "iOS17", spoilt(images)
    )
    assert relative_error(program.computed[0], module, images[:1]) < 0.15


def test_the_range_is_the_middle_of_the_values() -> None:
    uniform = torch.linspace(0.5e-5, 1 - 0.5e-5, 100_000, dtype=torch.float64)
    normal = torch.special.ndtri(uniform).float()[torch.randperm(100_000, generator=torch.manual_seed(0))]
    observer = MiddleObserver()
    for part in normal.split(30_000):
        observer(part)
    bin_width = float(normal.max() - normal.min()) / 2048
    assert [float(end) for end in observer.ends()] == pytest.approx([-3.2905, 3.2905], abs=3 * bin_width)
    assert float(normal.max()) > 4, "the extremes are far from there"


def test_the_range_of_a_constant_is_the_constant() -> None:
    observer = MiddleObserver()
    observer(torch.zeros(10))
    assert [float(end) for end in observer.ends()] == [0, 0]


def test_the_images_are_a_seeded_choice_of_training_images_as_they_are_evaluated(tmp_path) -> None:
    spec = calibrated(SPEC, DIGITS, tmp_path)
    data = ImageData(open_source("digits"))
    training, _ = data.batch(data.split.train, 16)
    images = load_file(spec.calibration_path)["images"]
    assert images.shape == (6, 3, 16, 16)
    for image in images:
        assert (training == image).all((1, 2, 3)).any()
    assert spec.calibration.startswith(
        f"6 images of {data.source.digest[:12]}, seed 1, middle 99.9 %: sha256:"
    )
    again = calibrated(SPEC, DIGITS, tmp_path)
    other = calibrated(SPEC, Calibration("digits", images=6, seed=2), tmp_path)
    assert again.cache_key == spec.cache_key
    assert len({spec.cache_key, other.cache_key, SPEC.cache_key}) == 3
    (first, *rest) = calibration_inputs((torch.zeros(1, 3, 16, 16),), images)
    assert torch.equal(first[0], images[:1])
    assert len(rest) == 5


def test_an_artifact_tells_of_its_calibration(tmp_path) -> None:
    spec = calibrated(SPEC, DIGITS, tmp_path)
    artifact = export_spec(spec, ArtifactCache(tmp_path / "cache"))
    assert artifact.spec.calibration == spec.calibration
    assert f"int8 ranges of {spec.calibration}".encode() in artifact.path.read_bytes()
    assert 0 < artifact.report.max_relative_error < 0.1


@pytest.mark.parametrize(
    ("spec", "calibration", "says"),
    [
        (ExportSpec(KEYS), DIGITS, "not of fp32; add --precision int8"),
        (
            SPEC,
            Calibration("digits", images=5000),
            "--calibration-images 5000: digits has 14[0-9]{2} training",
        ),
        (SPEC, Calibration("digits", images=0), "--calibration-images 0"),
        (SPEC, Calibration("imagefolder:/nowhere"), "/nowhere does not exist"),
    ],
)
def test_no_calibration_images_is_one_line(spec, calibration, says, tmp_path) -> None:
    with pytest.raises(UsageError, match=says):
        calibrated(spec, calibration, tmp_path)


def test_images_that_do_not_fit_the_network_are_reported(tmp_path) -> None:
    spec = calibrated(SPEC, DIGITS, tmp_path)
    path = Path(spec.calibration_path)
    with pytest.raises(
        InvalidArtifactError, match=r"6 calibration images of \(3, 16, 16\); the network takes"
    ):
        read_images(path, (torch.zeros(1, 3, 32, 32),))
    path.write_bytes(b"no")
    with pytest.raises(InvalidArtifactError, match="no calibration images"):
        read_images(path, (torch.zeros(1, 3, 16, 16),))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--seed", "1"), "add --calibration DATA"),
        (("--calibration-images", "9"), "add --calibration DATA"),
        (("--calibration", "digits"), "add --precision int8"),
    ],
)
def test_options_that_say_nothing_are_refused(options, says) -> None:
    with pytest.raises(UsageError, match=says):
        invoke("export", "--arch", "autovit-xxs-paper", *options)


def test_timm_networks_are_calibrated_at_their_own_size(tmp_path) -> None:
    spec = calibrated(ExportSpec(module="timm:mobilenetv3_small_050@32", precision="int8"), DIGITS, tmp_path)
    assert np.shape(load_file(spec.calibration_path)["images"]) == (6, 3, 32, 32)


def test_range_ends_at_the_end_of_its_last_bin() -> None:
    """Four bins of 1 from 2 to 6, a quarter of the values in each: the middle 99.9 % begin and end with them."""
    observer = SimpleNamespace(
        histogram=torch.ones(4), min_val=torch.tensor(2.0), max_val=torch.tensor(6.0), bins=4
    )
    low, high = MiddleObserver.ends(observer)  # type: ignore[arg-type]
    assert (low.item(), high.item()) == (2.0, 6.0)

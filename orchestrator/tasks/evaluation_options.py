"""Options of `bench eval`, `bench compare` and `bench sensitivity`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from orchestrator.tasks.options import (
    REQUIRED,
    TARGET,
    MeasureOptions,
    advanced_option,
    argument,
    artifact_option,
    keep_fp32_option,
    network_option,
    option,
    option_fields,
    output_option,
    resolution_option,
    target_option,
)
from orchestrator.tasks.quantization import DEFAULT_IMAGES, Calibration
from orchestrator.tasks.target import Target
from search.spaces import load_arch

evaluation_option = partial(option, panel="Evaluation")

IMAGES = "Image source: imagefolder:DIR, cifar10:DIR or FILE.npz, npz:FILE, or digits"


def refuse_options(options: Any, applicable: frozenset[str], what: str) -> None:
    """Raise UsageError for an option that differs from its default and is not among the applicable ones."""
    for field in option_fields(type(options)):
        if field.info is None or field.name in applicable:
            continue
        if getattr(options, field.name) != field.default:
            raise UsageError(
                f"{field.flags[-1]} does not apply to {what}; leave it out", code="option_not_applicable"
            )


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """Images that decide the ranges of int8 activations."""

    calibration: str | None = advanced_option(
        None, f"{IMAGES}, whose images decide the ranges of int8.", shown="random inputs"
    )
    calibration_images: int | None = advanced_option(
        None,
        "Number of calibration images, sampled from the training images.",
        minimum=1,
        shown=str(DEFAULT_IMAGES),
    )

    def calibration_for(self, seed: int = 0) -> Calibration | None:
        """Return the calibration; None without images.

        Raises:
            UsageError: a number of images without images.
        """
        if self.calibration is None:
            if self.calibration_images is not None:
                raise UsageError(
                    "--calibration-images needs images; add --calibration DATA", code="missing_option"
                )
            return None
        return Calibration(self.calibration, self.calibration_images or DEFAULT_IMAGES, seed)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Images that networks are evaluated on; without `data` nothing is evaluated."""

    data: str | None = evaluation_option(
        None, f"{IMAGES}; coco:DIR or voc:DIR for detection and segmentation.", shown="no evaluation"
    )
    split: str = evaluation_option(
        "validation", "validation (the data's own, or what training holds out), search, or all images."
    )
    images: int | None = evaluation_option(
        None, "Number of images, sampled with --seed.", minimum=1, shown="all"
    )
    classes: str | None = evaluation_option(
        None,
        "Class of each output: imagenet (synsets such as n01440764), or a file with one name per line. By default "
        "the order of the data's classes, where a network has as many outputs.",
    )
    seen_as: str = evaluation_option(
        "imagenet", "Normalisation of images for --artifact: imagenet, or timm:NAME for that network's."
    )
    processes: int | None = advanced_option(
        None, "Processes that run exported programs over images.", minimum=1, shown="half the cores"
    )
    seed: int = advanced_option(0, "Random seed of the image sample.")


@dataclass(frozen=True)
class OptionalTarget(Target):
    """A target that may have no device: then nothing is measured, and models are exported for this machine."""

    device: str = target_option(
        "",
        "Device to measure latency on: host, a phone's name or serial, or simulated[:SCENARIO].",
        shown="latency is not measured",
    )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(MeasureOptions, EvalConfig, CalibrationOptions):
    """Compare top-1 of networks as exported and in PyTorch, latency, size and memory; mark the best.

    Of trainings for detection or segmentation (NETWORK:FOLDER): mAP or mIoU on the validation images. ExecuTorch's
    files are evaluated on this machine, each image on its own, as on a phone.
    """

    networks: tuple[str, ...] = argument(
        (),
        "Networks: a name, a JSON file or timm:NAME; append :FILE.safetensors, or :DIR of a training.",
        flag="--model --arch",
        metavar="[NETWORK[:WEIGHTS]]...",
    )
    files: tuple[Path, ...] = artifact_option()
    supernet: Path | None = network_option(
        None, "Folder of the training whose weights architectures inherit."
    )
    resolution: int | None = resolution_option()
    target: OptionalTarget = OptionalTarget()
    keep_fp32: tuple[str, ...] = keep_fp32_option()
    output: Path | None = output_option(
        None,
        "Folder for table and picture; finished work is cached there, and the same command resumes.",
        flag="--output -o",
    )
    seed: int = advanced_option(0, "Random seed of the measuring schedule and the image sample.")

    def check(self) -> None:
        """Raise UsageError where there is nothing to compare, or to compare by."""
        if not self.networks and not self.files:
            raise UsageError("nothing to compare; name a network or give --artifact FILE", code="no_network")
        if not self.target.device and self.data is None:
            raise UsageError(
                "nothing to compare by; give --data, --device or both", code="nothing_to_compare"
            )
        if self.data is None and (self.classes or self.images):
            raise UsageError("--classes and --images need images; add --data", code="missing_option")


DENSE_COMPARE = frozenset(
    {"networks", "data", "output", "budget_s", "seed", "self_test", "pace_us", "workers", "processes"}
)
"""Options of `bench compare` that apply to detection and segmentation."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions(CalibrationOptions):
    """Evaluate one architecture with weights inherited from a supernet, in PyTorch or as it is exported.

    Of a training for detection or segmentation: mAP or mIoU of its network on the validation images.
    """

    supernet: Path = network_option(REQUIRED, "Folder of a training.")
    arch: Any = argument(
        None,
        "Architecture by name, or its JSON file (-: stdin).",
        flag="--arch --model",
        parse=lambda text, _: load_arch(text),
        shown="the one that was trained alone",
        metavar="NETWORK",
    )
    outside: bool = network_option(False, "Allow networks that the supernet was not trained on.")
    data: str | None = evaluation_option(
        None, f"{IMAGES}. Use it if the images have moved since training.", shown="the training's"
    )
    adaptive: Path | None = network_option(
        None, "Folder of bench search --adaptive: run its exported stages in order on the images."
    )
    final: bool = evaluation_option(
        False, "Evaluate on the held-out validation images (use once, at the end)."
    )
    runtime: str = target_option("executorch", "With --precision: executorch or coreml.")
    precision: str | None = target_option(
        None, "Evaluate the exported program in fp32, fp16, int8 or mixed.", shown="the network in PyTorch"
    )
    keep_fp32: tuple[str, ...] = keep_fp32_option(TARGET)
    on: str = advanced_option("auto", "Where to evaluate in PyTorch: auto, cpu, cuda or mps.")
    seed: int | None = advanced_option(None, "Random seed of the calibration images.", minimum=0, shown="0")

    def __post_init__(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.keep_fp32 and not self.precision:
            raise UsageError("--keep-fp32 needs --precision mixed; add it", code="missing_option")
        if self.runtime != "executorch" and not self.precision:
            raise UsageError(
                f"--runtime {self.runtime} is for the exported program; add --precision",
                code="missing_option",
            )
        if self.seed is not None and self.calibration is None:
            raise UsageError(
                "--seed is for calibration images; add --calibration DATA", code="missing_option"
            )


DENSE_EVAL = frozenset({"supernet", "data", "precision", "on"})
"""Options of `bench eval` that apply to detection and segmentation."""


@dataclass(frozen=True, kw_only=True)
class SensitivityOptions(EvalConfig):
    """Measure each block's int8 sensitivity (top-1 and agreement with fp32).

    Then find the fewest blocks that must stay fp32. Int8 is simulated in PyTorch as the exporter quantises.
    """

    network: tuple[str, ...] = argument(
        (),
        "Network: a name, a JSON file (-: stdin), or timm:NAME.",
        flag="--model --arch",
        metavar="[NETWORK]",
    )
    data: str = evaluation_option(
        REQUIRED, f"{IMAGES}; training images decide ranges, held-out images evaluate."
    )
    split: str = evaluation_option("search", "search (held out of training), validation or all images.")
    images: int = evaluation_option(500, "Number of images to evaluate on.", minimum=1)
    seen_as: str = "imagenet"
    processes: int | None = None
    seed: int = advanced_option(0, "Random seed of both image samples.", minimum=0)
    weights: Path | None = network_option(None, "Its trained weights, FILE.safetensors.")
    supernet: Path | None = network_option(None, "Folder of a training with its weights.")
    outside: bool = network_option(False, "Allow networks that the supernet was not trained on.")
    resolution: int | None = resolution_option()
    calibration_images: int = advanced_option(
        DEFAULT_IMAGES, "Training images that decide ranges.", minimum=1
    )
    within: float = evaluation_option(
        0.5, "Percentage points of top-1 that mixed precision may lose to fp32.", minimum=0, maximum=100
    )
    output: Path | None = output_option(
        None, "File (.json) that --keep-fp32 of other commands takes.", flag="--output -o"
    )

    def __post_init__(self) -> None:
        """Raise UsageError for options that contradict each other."""
        if self.output is not None and self.output.suffix != ".json":
            raise UsageError(
                f"--output {self.output}: --keep-fp32 takes .json files; name it so", code="wrong_suffix"
            )
        if self.weights is None and self.supernet is None:
            raise UsageError(
                "random weights have no accuracy to lose; give --weights FILE or --supernet DIR",
                code="no_weights",
            )

"""Networks, or all blocks of a space, as files that a phone runs, checked against PyTorch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from luts.format.errors import UsageError
from luts.format.files import check_folder
from luts.format.table import Column, Table
from orchestrator.export import Artifact, ExportSpec, block_specs_for
from orchestrator.export.artifacts.artifact import deliver
from orchestrator.export.artifacts.spec import QUANTISED
from orchestrator.tasks.evaluation_options import CalibrationOptions
from orchestrator.tasks.measured import outside_text
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import Network, NetworkOptions, as_named, at_resolution, by_name, for_task
from orchestrator.tasks.options import (
    REQUIRED,
    ExportOptions,
    advanced_option,
    argument,
    keep_fp32_option,
    network_option,
    output_option,
    target_option,
)
from orchestrator.tasks.parsing import parse_deployment_target, parse_resolutions
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.quantization import RANDOM_RANGES, Calibration, calibrated, stays_fp32
from orchestrator.tasks.trained import Trained, inherit, of_file
from orchestrator.winner.card import weighted
from search.spaces import get_space

if TYPE_CHECKING:
    from search.supernet.data.images import Normalization

MODEL_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "executorch": (".pte",),
    "coreml": (".mlpackage", ".zip"),
    "onnx": (".onnx",),
    "litert": (".tflite",),
}
"""Suffixes of model files by runtime; Core ML's first is a folder."""

RANDOM_WEIGHTS = (
    "note: random weights, for measuring alone; --weights FILE or --supernet DIR gives trained ones"
)


@dataclass(frozen=True)
class LoweringOptions:
    """What models are lowered to; what is empty is the default of runtime and backend."""

    runtime: str = target_option(
        "executorch", "executorch (.pte), coreml (.mlpackage), onnx, litert (.tflite)."
    )
    backend: str = target_option("", "xnnpack, portable, coreml or vulkan.")
    precision: str = target_option("", "fp32, fp16, int8 or mixed.")
    deployment_target: str = target_option(
        "",
        "Oldest iOS of a Core ML model: 15 to 18.",
        flag="--ios",
        parse=parse_deployment_target,
        shown="16, for int8 17",
        metavar="VERSION",
    )

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """The options of an `ExportSpec`."""
        return (("deployment_target", self.deployment_target),) if self.deployment_target else ()


@dataclass(frozen=True)
class Lowering(LoweringOptions):
    """How whole networks are lowered; `fp32` is what stays fp32 in mixed precision."""

    batch: int = network_option(1, "Images that the model computes at once.")
    fp32: tuple[str, ...] = keep_fp32_option()

    def spec(self, network: Network) -> ExportSpec:
        """Return how a network is exported; raise UsageError for an unknown runtime, backend or precision."""
        blocks, module = ((), network) if isinstance(network, str) else (network.keys(), "")
        return ExportSpec(
            blocks,
            module,
            self.runtime,
            self.backend,
            self.precision,
            self.options,
            fp32=stays_fp32(self.fp32, blocks, module),
            batch=self.batch,
        )


@dataclass(frozen=True, kw_only=True)
class ExportCommand(ExportOptions, NetworkOptions):
    """Export networks and check them against PyTorch.

    Several networks in one call are faster than several calls: the toolchain is loaded once. bench export blocks
    exports every block of a space.
    """

    lowering: Lowering = field(default_factory=Lowering)
    trained: Trained = field(default_factory=Trained)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    seed: int | None = advanced_option(
        None, "Random seed of the choice of calibration images.", minimum=0, shown="0"
    )
    output: Path | None = output_option(
        None,
        "File of one network, folder of several. Core ML: an .mlpackage, or its zip if the name ends so.",
        flag="--output -o",
        shown="the cache",
    )


@dataclass(frozen=True, kw_only=True)
class ExportBlocksCommand(ExportOptions):
    """Export every block of a space on its own, as a model of batch 1."""

    space: str = argument(REQUIRED, "Search space whose blocks are exported.", metavar="SPACE")
    lowering: LoweringOptions = field(default_factory=LoweringOptions)
    resolutions: tuple[int, ...] | None = network_option(
        None,
        "Input sizes, separated by commas.",
        flag="--resolution",
        parse=parse_resolutions,
        shown="all",
        metavar="PIXELS",
    )
    output: Path | None = output_option(None, "Folder of the files.", flag="--output -o", shown="the cache")


@dataclass(frozen=True)
class ExportedModels:
    """Exported models by name, and where their weights come from."""

    artifacts: Mapping[str, Artifact]
    weights: str

    COLUMNS: ClassVar = (
        Column("name", "model"),
        Column("weights", "weights"),
        Column("bytes", "bytes"),
        Column("delegates", "delegates"),
        Column("outside", "operators outside"),
        Column("max_abs_error", "max |error|"),
        Column("max_relative_error", "of the scale"),
        Column("export_s", "seconds", 1),
    )

    def to_dict(self) -> list[dict[str, Any]]:
        """Return the JSON document, a list of models."""
        return [self._row(name, artifact) for name, artifact in self.artifacts.items()]

    def report(self) -> Iterator[Table | str]:
        """Yield the table, and the path of each model."""
        rows = self.to_dict()
        shown = [
            row
            | {name: _error_text(row[name]) for name in ("max_abs_error", "max_relative_error")}
            | {"outside": outside_text(row["outside"])}
            for row in rows
        ]
        yield Table("", self.COLUMNS, shown)
        for row in rows:
            yield f"{row['name']}: {row['path']}"

    def _row(self, name: str, artifact: Artifact) -> dict[str, Any]:
        report = artifact.report
        return {
            "name": name,
            "weights": self.weights,
            "fp32": list(artifact.spec.fp32) or None,
            "calibration": artifact.spec.calibration or None,
            "weights_sha256": artifact.spec.weights.partition("sha256:")[2] or None,
            "bytes": artifact.payload_bytes,
            "delegates": artifact.delegates,
            "outside": artifact.outside,
            "max_abs_error": report.max_abs_error,
            "max_relative_error": report.max_relative_error,
            "made": report.made,
            "export_s": report.export_s,
            "path": str(artifact.path),
            "sha256": artifact.sha256,
        }


def _error_text(error: float | None) -> str:
    return "not run here" if error is None else f"{error:.1e}"


def export_networks(options: ExportCommand, progress: Progress = silent) -> dict[str, Artifact]:
    """Export networks, those that are not cached in parallel processes.

    Without networks, the network that `trained.supernet` was trained for alone is exported.

    Returns:
        Models by name; their `path` is the file in `output`, or in the cache without one.

    Raises:
        UsageError: no network, an unknown network, runtime, backend or precision, files with the same name or
            another suffix, or weights of other networks.
        InvalidArtifactError: damaged weights, or weights that do not fit.
        ExportError: names the models that could not be exported; the others are cached.
        StorageError: the output can't be written.
    """
    options.trained.check()
    if options.trained.file is not None and options.trained.supernet is not None:
        raise UsageError("give --weights or --supernet, not both", code="two_sources_of_weights")
    if not options.networks and options.trained.supernet is None:
        raise UsageError("nothing to export; name a network", code="no_network")
    if options.seed is not None and options.calibration.calibration is None:
        raise UsageError(
            "--seed is for calibration images; add --calibration DATA", code="calibration_missing"
        )
    calibration = options.calibration.calibration_for(options.seed or 0)
    lowering, output = options.lowering, options.output
    given = by_name(for_task(options.networks, options.task, options.classes))
    if output is not None:
        if len(given) > 1:
            _check_folder(output, given)
        else:
            _check_file(output, lowering.runtime)
        check_folder(output if len(given) > 1 else output.parent)
    with tempfile.TemporaryDirectory() as folder:
        specs = specs_for(
            given, lowering, options.resolution, options.trained, calibration, Path(folder), progress
        )
        artifacts = export_all(specs, options.workers, progress)
    if output is not None and len(artifacts) == 1:
        return {name: _delivered(artifact, output) for name, artifact in artifacts.items()}
    return _delivered_into(output, artifacts)


def specs_for(
    networks: Mapping[str, Network],
    lowering: Lowering,
    resolution: int | None,
    trained: Trained,
    calibration: Calibration | None,
    folder: Path,
    progress: Progress,
) -> dict[str, ExportSpec]:
    """Return how networks are exported; files of weights and images are written to `folder`."""
    if trained.supernet is None:
        sized = {name: at_resolution(name, network, resolution) for name, network in networks.items()}
        specs = {name: lowering.spec(network) for name, network in sized.items()}
        if trained.file is None:
            progress(Note(RANDOM_WEIGHTS))
        else:
            specs = of_file(specs, trained.file)
    else:
        inherited = inherit(networks, resolution, trained, folder, progress)
        specs = {
            name: weighted(lowering.spec(as_named(arch)), file) for name, (arch, file) in inherited.items()
        }
    if calibration is not None:
        from orchestrator.tasks.candidates import split_of  # brings torch

        split = split_of((), trained.supernet)
        return {
            name: calibrated(spec, calibration, folder, normalization_for(spec, trained), split)
            for name, spec in specs.items()
        }
    if lowering.precision in QUANTISED and (trained.file or trained.supernet):
        progress(Note(RANDOM_RANGES))
    return specs


def export_blocks(options: ExportBlocksCommand, progress: Progress = silent) -> dict[str, Artifact]:
    """Export every block of a space on its own, at batch 1; returns and raises as `export_networks`."""
    how, output = options.lowering, options.output
    specs = block_specs_for(
        get_space(options.space),
        options.resolutions,
        runtime=how.runtime,
        backend=how.backend,
        precision=how.precision,
        options=how.options,
    )
    if output is not None:
        check_folder(output)
    return _delivered_into(output, export_all({spec.name: spec for spec in specs}, options.workers, progress))


def normalization_for(spec: ExportSpec, trained: Trained) -> Normalization | None:
    """Return timm's normalisation for a timm network with weights of a file; None for ImageNet's, used here."""
    from orchestrator.tasks.candidates import seen_by_timm  # brings torch

    if not spec.module or trained.supernet is not None:
        return None
    return seen_by_timm(spec.module.removeprefix("timm:"))[0]


def _stem(name: str) -> str:
    """Return the file name of a network that is named by a path, `timm:NAME` or a plain name."""
    return Path(name.removeprefix("timm:")).name.removesuffix(".json")


def _delivered(artifact: Artifact, file: Path) -> Artifact:
    return artifact.model_copy(update={"path": deliver(artifact.path, file)})


def _delivered_into(folder: Path | None, artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
    if folder is None:
        return artifacts
    return {
        name: _delivered(artifact, folder / f"{_stem(name)}{artifact.suffix}")
        for name, artifact in artifacts.items()
    }


def _check_file(output: Path, runtime: str) -> None:
    suffixes = MODEL_SUFFIXES.get(runtime, ())
    if suffixes and output.suffix not in suffixes:
        raise UsageError(
            f"--output {output}: a model for {runtime} is a {' or '.join(suffixes)}; name it so, or choose "
            "another --runtime",
            code="output_suffix",
        )


def _check_folder(output: Path, networks: Mapping[str, Network]) -> None:
    if any(output.suffix in suffixes for suffixes in MODEL_SUFFIXES.values()) or output.is_file():
        raise UsageError(
            f"--output {output}: {len(networks)} networks go into a folder, not into one file",
            code="output_is_a_file",
        )
    stem, count = Counter(_stem(name) for name in networks).most_common(1)[0]
    if count > 1:
        raise UsageError(
            f"{count} networks would be written as {stem}; export them one by one", code="same_file_name"
        )

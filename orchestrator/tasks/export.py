"""Networks, or all blocks of a space, as files that a phone runs, checked against PyTorch."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from luts.format.errors import UsageError
from luts.format.files import check_folder
from orchestrator.export import Artifact, ExportSpec, block_specs_for
from orchestrator.export.artifacts.artifact import deliver
from orchestrator.export.artifacts.spec import QUANTISED
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import Network, Networks, as_named, at_resolution, by_name
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
"""How a model's file is called, by runtime; Core ML's first is a folder."""

RANDOM_WEIGHTS = (
    "note: random weights, for measuring alone; --weights FILE or --supernet DIR gives trained ones"
)


@dataclass(frozen=True)
class Lowering:
    """What models are lowered to; what is empty is the default of runtime and backend.

    Attributes:
        runtime: `executorch` (.pte), `coreml` (.mlpackage), `onnx` or `litert` (.tflite).
        backend: `xnnpack`, `portable`, `coreml` or `vulkan`; of the others the only one.
        precision: `fp32`, `fp16`, `int8` or `mixed`.
        deployment_target: Oldest iOS of a Core ML model, such as `iOS17`.
        batch: Images that a model computes at once.
        fp32: With precision `mixed` what stays fp32, as of `stays_fp32`.
    """

    runtime: str = "executorch"
    backend: str = ""
    precision: str = ""
    deployment_target: str = ""
    batch: int = 1
    fp32: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """Of `ExportSpec`."""
        return (("deployment_target", self.deployment_target),) if self.deployment_target else ()

    def spec(self, network: Network) -> ExportSpec:
        """How a network is exported. Raises UsageError for what there is not."""
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


def export_networks(
    networks: Networks,
    lowering: Lowering | None = None,
    *,
    resolution: int | None = None,
    trained: Trained | None = None,
    calibration: Calibration | None = None,
    output: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, Artifact]:
    """Export networks, those that the cache does not have in parallel processes.

    Args:
        networks: One or more; none for the one that `trained.supernet` was trained for alone.
        lowering: To what; ExecuTorch with XNNPACK in fp32 by default.
        resolution: Side of the input image for all networks; their own by default.
        trained: Where trained weights come from; random ones by default, which a note says.
        calibration: The images that decide int8's ranges; seeded random inputs by default.
        output: The file of one network; of several the folder, which gets a file by the name of each.
        workers: Exporting processes; all cores by default.
        progress: Told of every export.

    Returns:
        Models whose `path` is the file in `output`, without one that in the cache.

    Raises:
        UsageError: a network, runtime, backend or precision that there is not, files of one name or another type,
            or weights of other networks.
        InvalidArtifactError: weights that are damaged or do not fit.
        ExportError: names the models that could not be exported; the others are in the cache.
        StorageError: the output can't be written.
    """
    lowering = lowering or Lowering()
    given, trained = by_name(networks), trained or Trained()
    if output is not None:
        if len(given) > 1:
            _check_folder(output, given)
        else:
            _check_file(output, lowering.runtime)
        check_folder(output if len(given) > 1 else output.parent)
    with tempfile.TemporaryDirectory() as folder:
        specs = specs_for(given, lowering, resolution, trained, calibration, Path(folder), progress)
        artifacts = export_all(specs, workers, progress)
    if output is None:
        return artifacts
    if len(artifacts) == 1:
        return {name: _delivered(artifact, output) for name, artifact in artifacts.items()}
    return {
        name: _delivered(artifact, output / f"{_stem(name)}{artifact.suffix}")
        for name, artifact in artifacts.items()
    }


def specs_for(
    networks: Mapping[str, Network],
    lowering: Lowering,
    resolution: int | None,
    trained: Trained,
    calibration: Calibration | None,
    folder: Path,
    progress: Progress,
) -> dict[str, ExportSpec]:
    """How networks are exported, with files of weights and images in `folder`; the rest as `export_networks`."""
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
        return {name: _calibrated(spec, calibration, folder, trained) for name, spec in specs.items()}
    if lowering.precision in QUANTISED and (trained.file or trained.supernet):
        progress(Note(RANDOM_RANGES))
    return specs


def export_blocks(
    space: str,
    lowering: Lowering | None = None,
    *,
    resolutions: tuple[int, ...] | None = None,
    output: Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> dict[str, Artifact]:
    """Export every block of a space on its own, at all its resolutions by default, into the folder `output`.

    The other arguments and errors are those of `export_networks`.
    """
    how = lowering or Lowering()
    specs = block_specs_for(
        get_space(space),
        resolutions,
        runtime=how.runtime,
        backend=how.backend,
        precision=how.precision,
        options=how.options,
    )
    if output is not None:
        check_folder(output)
    artifacts = export_all({spec.name: spec for spec in specs}, workers, progress)
    if output is None:
        return artifacts
    return {
        name: _delivered(artifact, output / f"{name}{artifact.suffix}")
        for name, artifact in artifacts.items()
    }


def normalization_for(spec: ExportSpec, trained: Trained) -> Normalization | None:
    """As timm has it for weights of a file of a network of timm, as `bench compare` does; None for ImageNet's, with
    which networks are trained here."""
    from orchestrator.tasks.candidates import seen_by_timm  # brings torch

    if not spec.module or trained.supernet is not None:
        return None
    return seen_by_timm(spec.module.removeprefix("timm:"))[0]


def _calibrated(spec: ExportSpec, calibration: Calibration, folder: Path, trained: Trained) -> ExportSpec:
    from orchestrator.tasks.candidates import split_of  # brings torch

    split = split_of((), trained.supernet)
    return calibrated(spec, calibration, folder, normalization_for(spec, trained), split)


def _stem(name: str) -> str:
    """A file's name of what a network is called: a path, `timm:NAME` or a plain name."""
    return Path(name.removeprefix("timm:")).name.removesuffix(".json")


def _delivered(artifact: Artifact, file: Path) -> Artifact:
    return artifact.model_copy(update={"path": deliver(artifact.path, file)})


def _check_file(output: Path, runtime: str) -> None:
    suffixes = MODEL_SUFFIXES.get(runtime, ())
    if suffixes and output.suffix not in suffixes:
        raise UsageError(
            f"--output {output}: a model for {runtime} is a {' or '.join(suffixes)}; name it so, or choose "
            "another --runtime"
        )


def _check_folder(output: Path, networks: Mapping[str, Network]) -> None:
    if any(output.suffix in suffixes for suffixes in MODEL_SUFFIXES.values()) or output.is_file():
        raise UsageError(f"--output {output}: {len(networks)} networks go into a folder, not into one file")
    stem, count = Counter(_stem(name) for name in networks).most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} networks would be written as {stem}; export them one by one")

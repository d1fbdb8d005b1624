"""Export one model: capture, lower, check against PyTorch, report."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export.artifacts.artifact import (
    MAX_REASON,
    RELATIVE_TOLERANCE,
    Artifact,
    ArtifactCache,
    OpCounts,
    Report,
    allowed_error,
    pack,
)
from orchestrator.export.artifacts.spec import DEFAULT_DEPLOYMENT_TARGET, ExportSpec
from orchestrator.export.lower.calibration import filled, read_images
from orchestrator.export.lower.coreml import convert_to_mlpackage
from orchestrator.export.lower.executorch import LoweredProgram, lower_to_executorch
from orchestrator.export.lower.other_runtimes import lower_to_litert, lower_to_onnx, run_litert, run_onnx
from orchestrator.export.lower.parity import RUNNABLE_BACKENDS, check_parity, run_pte, run_pte_isolated
from orchestrator.export.lower.source import build_module, check_paths, stamp_package, stamp_program
from orchestrator.export.reuse.fragment import FragmentStore, units_of
from search.blocks import parse_keys

RunPte = Callable[[bytes, Sequence[Tensor]], list[Tensor]]

_OTHER_RUNTIMES: dict[str, tuple[Callable[[nn.Module, Sequence[Tensor]], bytes], RunPte]] = {
    "onnx": (lower_to_onnx, run_onnx),
    "litert": (lower_to_litert, run_litert),
}
"""How models of other runtimes on the host are exported, and run for comparison with PyTorch."""


def export_spec(
    spec: ExportSpec, cache: ArtifactCache, tolerance: float = RELATIVE_TOLERANCE, run: RunPte = run_pte
) -> Artifact:
    """Return the cached model of a spec, exported in this process if it is missing.

    A cached model was checked against the tolerance of its time; one above this `tolerance` is exported and
    checked again. `export_many` does the same in processes of its own, in case a runtime crashes.

    Raises:
        BlocktimeError: An operator cannot be lowered, the outputs differ from PyTorch's, the disk is full.
    """
    cached = cache.get(spec)
    if cached is not None and cached.within(tolerance):
        return cached
    started_s = time.perf_counter()
    module, inputs = build_module(spec)
    check_paths(spec.name, module, spec.fp32)
    images = read_images(Path(spec.calibration_path), inputs) if spec.calibration else None
    if images is not None:
        inputs = (next(filled(images, spec.batch)),)  # noise is outside the ranges calibrated on images

    def write(path: Path) -> Report:
        export = _Export(
            module,
            inputs,
            path,
            spec.runtime,
            spec.backend,
            spec.precision,
            spec.deployment_target,
            tolerance,
            run,
            started_s,
            spec.weights_label,
            images,
            spec.fp32,
        )
        return export.reusing(spec, FragmentStore(cache.fragments)) if spec.reusable else export.whole()

    return cache.put(spec, write)


def export_module(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    *,
    runtime: str = "executorch",
    backend: str = "xnnpack",
    precision: str = "fp32",
    deployment_target: str = DEFAULT_DEPLOYMENT_TARGET,
    tolerance: float = RELATIVE_TOLERANCE,
) -> Report:
    """Export any eval-mode module to `path` (for Core ML a zip), without the cache.

    ExecuTorch programs are run in a child process for the check.

    Raises:
        BlocktimeError: An operator cannot be lowered, or the outputs differ from PyTorch's.
    """
    return _Export(
        module, inputs, path, runtime, backend, precision, deployment_target, tolerance, run_pte_isolated
    ).whole()


@dataclass(frozen=True)
class _Export:
    """The export of one module to a file, which is written once its outputs are correct.

    Attributes:
        tolerance: Largest relative error of fp32.
        run: Runs ExecuTorch programs on the host.
        started_s: Of `time.perf_counter`, before the module was built.
        weights: What the file says about its weights; nothing if empty.
        images: (N, 3, H, W) that decide int8's ranges; None for seeded inputs.
        fp32: Paths of modules that stay fp32.
    """

    module: nn.Module
    inputs: Sequence[Tensor]
    path: Path
    runtime: str
    backend: str
    precision: str
    deployment_target: str
    tolerance: float
    run: RunPte
    started_s: float = field(default_factory=time.perf_counter)
    weights: str = ""
    images: Tensor | None = None
    fp32: Sequence[str] = ()

    def reusing(self, spec: ExportSpec, store: FragmentStore) -> Report:
        """Splice if possible and the check passes; else lower the whole network, and store its fragments."""
        from orchestrator.export.reuse.lowering import lower_and_keep, splice_network

        units = units_of(parse_keys(spec.blocks))
        spliced = splice_network(spec.blocks, self.module, store)
        if spliced is not None:
            with contextlib.suppress(InvalidArtifactError):
                return self._program(spliced).model_copy(update={"made": "spliced"})
        if not spec.weights.startswith("seed:"):
            return self.whole()
        return self._or_plain(lambda: lower_and_keep(self.module, self.inputs, units, store)[0])

    def whole(self) -> Report:
        """Lower the network in one piece."""
        if self.runtime == "coreml":
            return self._package()
        if self.runtime in _OTHER_RUNTIMES:
            return self._other()
        return self._or_plain(lambda: self._lowered(plain=False))

    def _or_plain(self, lower: Callable[[], LoweredProgram]) -> Report:
        """Lower without rewrites what failed with them; raise the first error if that fails too."""
        try:
            return self._program(lower())
        except BlocktimeError as error:
            try:
                report = self._program(self._lowered(plain=True))
            except BlocktimeError:
                raise error from None
            return report.model_copy(update={"made": "plain", "plain_because": str(error)[:MAX_REASON]})

    def _lowered(self, *, plain: bool) -> LoweredProgram:
        return lower_to_executorch(
            self.module,
            self.inputs,
            self.backend,
            self.precision,
            self.deployment_target,
            plain=plain,
            images=self.images,
            fp32=self.fp32,
        )

    def _program(self, lowered: LoweredProgram) -> Report:
        data = stamp_program(lowered.data, self.weights) if self.weights else lowered.data
        outputs = self.run(data, self.inputs) if self.backend in RUNNABLE_BACKENDS else None
        report = self._report(lowered.delegates, lowered.operators, outputs)
        self.path.write_bytes(data)
        return report

    def _package(self) -> Report:
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            package = Path(folder) / "model.mlpackage"
            program = convert_to_mlpackage(
                self.module, self.inputs, package, self.precision, self.deployment_target, self.images
            )
            report = self._report(1, program.operators, program.computed)
            if self.weights:
                stamp_package(package, self.weights)
            pack(package, self.path)
        return report

    def _other(self) -> Report:
        lower, run = _OTHER_RUNTIMES[self.runtime]
        data = lower(self.module, self.inputs)
        report = self._report(0, (), run(data, self.inputs))
        self.path.write_bytes(data)
        return report

    def _report(self, delegates: int, operators: OpCounts, outputs: Sequence[Tensor] | None) -> Report:
        """Compare the outputs with PyTorch's; they are None if nothing here can run the model."""
        allowed = allowed_error(self.precision, self.tolerance)
        parity = None if outputs is None else check_parity(outputs, self.module, self.inputs, allowed)
        return Report(
            delegates=delegates,
            operators=operators,
            max_abs_error=parity.max_abs_error if parity else None,
            max_relative_error=parity.max_relative_error if parity else None,
            tolerance=allowed,
            export_s=time.perf_counter() - self.started_s,
        )

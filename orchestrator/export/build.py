"""Export one model: capture, lower, check against PyTorch, report."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from orchestrator.export.lower.litert import lower_to_litert, run_litert
from orchestrator.export.lower.onnx import lower_to_onnx, run_onnx
from orchestrator.export.lower.parity import (
    RUNNABLE_BACKENDS,
    Parity,
    check_parity,
    run_pte,
    run_pte_isolated,
)
from orchestrator.export.lower.source import build_module, check_paths, stamp_package, stamp_program
from orchestrator.export.reuse.fragment import FragmentStore

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
            module, inputs, path, tolerance, run, started_s, spec.weights_label, images, spec.fp32
        )
        if spec.reusable:
            return export.reusing(spec, FragmentStore(cache.fragments))
        return export.whole(spec.runtime, spec.backend, spec.precision, spec.deployment_target)

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
    export = _Export(module, inputs, path, tolerance, run_pte_isolated, time.perf_counter())
    return export.whole(runtime, backend, precision, deployment_target)


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
    tolerance: float
    run: RunPte
    started_s: float
    weights: str = ""
    images: Tensor | None = None
    fp32: Sequence[str] = ()

    def reusing(self, spec: ExportSpec, store: FragmentStore) -> Report:
        """Splice if possible and the check passes; else lower the whole network, and store its fragments."""
        from orchestrator.export.reuse.lowering import lower_and_keep, splice_network

        spliced = splice_network(spec.blocks, self.module, store)
        if spliced is not None:
            with contextlib.suppress(InvalidArtifactError):
                return self._program(spliced, spec.backend, self.tolerance).model_copy(
                    update={"made": "spliced"}
                )
        if not spec.weights.startswith("seed:"):
            return self.whole(spec.runtime, spec.backend, spec.precision, spec.deployment_target)
        try:
            lowered = lower_and_keep(spec.blocks, self.module, self.inputs, store)
            return self._program(lowered, spec.backend, self.tolerance)
        except BlocktimeError as error:
            return self._plain(error, spec.backend, spec.precision, spec.deployment_target)

    def whole(self, runtime: str, backend: str, precision: str, deployment_target: str) -> Report:
        """Lower the network in one piece."""
        allowed = allowed_error(precision, self.tolerance)
        if runtime == "coreml":
            return self._package(precision, deployment_target, allowed)
        if runtime in _OTHER_RUNTIMES:
            return self._other(runtime, allowed)
        try:
            lowered = self._lowered(backend, precision, deployment_target, plain=False)
            return self._program(lowered, backend, allowed)
        except BlocktimeError as error:
            return self._plain(error, backend, precision, deployment_target)

    def _plain(self, error: BlocktimeError, backend: str, precision: str, deployment_target: str) -> Report:
        """Lower without rewrites what failed with them; raises `error` if that fails too."""
        try:
            lowered = self._lowered(backend, precision, deployment_target, plain=True)
            report = self._program(lowered, backend, allowed_error(precision, self.tolerance))
        except BlocktimeError:
            raise error from None
        return report.model_copy(update={"made": "plain", "plain_because": str(error)[:MAX_REASON]})

    def _lowered(
        self, backend: str, precision: str, deployment_target: str, *, plain: bool
    ) -> LoweredProgram:
        return lower_to_executorch(
            self.module,
            self.inputs,
            backend,
            precision,
            deployment_target,
            plain=plain,
            images=self.images,
            fp32=self.fp32,
        )

    def _program(self, lowered: LoweredProgram, backend: str, allowed: float) -> Report:
        data = stamp_program(lowered.data, self.weights) if self.weights else lowered.data
        outputs = self.run(data, self.inputs) if backend in RUNNABLE_BACKENDS else None
        parity = self._parity(outputs, allowed)
        self.path.write_bytes(data)
        return self._report(lowered.delegates, lowered.operators, parity, allowed)

    def _package(self, precision: str, deployment_target: str, allowed: float) -> Report:
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            package = Path(folder) / "model.mlpackage"
            program = convert_to_mlpackage(
                self.module, self.inputs, package, precision, deployment_target, self.images
            )
            parity = self._parity(program.computed, allowed)
            if self.weights:
                stamp_package(package, self.weights)
            pack(package, self.path)
        return self._report(1, program.operators, parity, allowed)

    def _other(self, runtime: str, allowed: float) -> Report:
        lower, run = _OTHER_RUNTIMES[runtime]
        data = lower(self.module, self.inputs)
        parity = self._parity(run(data, self.inputs), allowed)
        self.path.write_bytes(data)
        return self._report(0, (), parity, allowed)

    def _parity(self, outputs: Sequence[Tensor] | None, allowed: float) -> Parity | None:
        """Return the difference to PyTorch; None if nothing here can run the model."""
        return None if outputs is None else check_parity(outputs, self.module, self.inputs, allowed)

    def _report(self, delegates: int, operators: OpCounts, parity: Parity | None, allowed: float) -> Report:
        return Report(
            delegates=delegates,
            operators=operators,
            max_abs_error=parity.max_abs_error if parity else None,
            max_relative_error=parity.max_relative_error if parity else None,
            tolerance=allowed,
            export_s=time.perf_counter() - self.started_s,
        )

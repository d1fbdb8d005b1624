"""Export one model: capture, lower, check against PyTorch, report."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from luts.errors import InvalidArtifactError
from orchestrator.export.artifact import RELATIVE_TOLERANCE, Artifact, Report, allowed_error
from orchestrator.export.cache import ArtifactCache
from orchestrator.export.coreml import convert_to_mlpackage
from orchestrator.export.executorch import LoweredProgram, lower_to_executorch
from orchestrator.export.package import pack
from orchestrator.export.parity import (
    RUNNABLE_BACKENDS,
    check_parity,
    run_pte,
    run_pte_isolated,
)
from orchestrator.export.reuse.fragment import FragmentStore
from orchestrator.export.source import build_module
from orchestrator.export.spec import DEFAULT_DEPLOYMENT_TARGET, ExportSpec

RunPte = Callable[[bytes, Sequence[Tensor]], list[Tensor]]


def export_spec(
    spec: ExportSpec, cache: ArtifactCache, tolerance: float = RELATIVE_TOLERANCE, run: RunPte = run_pte
) -> Artifact:
    """The cached model of a spec, exported in this process if it is not there yet.

    A cached model was checked against the tolerance of its own time; one above this `tolerance` is exported
    and checked again. `export_many` does the same in processes that a crashing runtime cannot take along.

    Raises:
        BlocktimeError: an operator cannot be lowered, the outputs differ from PyTorch's, the disk is full.
    """
    cached = cache.get(spec)
    if cached is not None and cached.within(tolerance):
        return cached
    started = time.perf_counter()
    module, inputs = build_module(spec)

    def write(path: Path) -> Report:
        if _reusable(spec):
            return _export_reusing(
                spec, module, inputs, path, FragmentStore(cache.fragments), tolerance, run, started
            )
        return _export(
            module,
            inputs,
            path,
            spec.runtime,
            spec.backend,
            spec.precision,
            spec.deployment_target,
            tolerance,
            run,
            started,
        )

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
    """Export any eval-mode module to `path` (for Core ML a zip), past the cache; ExecuTorch programs are tried
    out in a child process.

    Raises:
        BlocktimeError: an operator cannot be lowered, or the outputs differ from PyTorch's.
    """
    return _export(
        module,
        inputs,
        path,
        runtime,
        backend,
        precision,
        deployment_target,
        tolerance,
        run_pte_isolated,
        time.perf_counter(),
    )


def _reusable(spec: ExportSpec) -> bool:
    """Whether a spec's program can be put together from parts of others."""
    return len(spec.blocks) > 1 and not spec.without and (spec.backend, spec.precision) == ("xnnpack", "fp32")


def _export_reusing(
    spec: ExportSpec,
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    store: FragmentStore,
    tolerance: float,
    run: RunPte,
    started: float,
) -> Report:
    """Splice if that can be done and passes the check; else lower the whole network, and keep its fragments."""
    from orchestrator.export.reuse.lowering import lower_and_keep, splice_network

    spliced = splice_network(spec.blocks, module, store)
    if spliced is not None:
        with contextlib.suppress(InvalidArtifactError):
            report = _write_checked(spliced, module, inputs, path, tolerance, run, started)
            return report.model_copy(update={"made": "spliced"})
    if spec.weights.startswith("seed:"):
        lowered = lower_and_keep(spec.blocks, module, inputs, store)
    else:
        lowered = lower_to_executorch(module, inputs, spec.backend, spec.precision)
    return _write_checked(lowered, module, inputs, path, tolerance, run, started)


def _write_checked(
    lowered: LoweredProgram,
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    tolerance: float,
    run: RunPte,
    started: float,
) -> Report:
    """Write a program for the host once it computes what the module does."""
    parity = check_parity(run(lowered.data, inputs), module, inputs, tolerance)
    path.write_bytes(lowered.data)
    return Report(
        delegates=lowered.delegates,
        operators=lowered.operators,
        max_abs_error=parity.max_abs_error,
        max_relative_error=parity.max_relative_error,
        tolerance=tolerance,
        export_s=time.perf_counter() - started,
    )


def _export(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    runtime: str,
    backend: str,
    precision: str,
    deployment_target: str,
    tolerance: float,
    run: RunPte,
    started: float,
) -> Report:
    allowed = allowed_error(precision, tolerance)
    parity = None
    if runtime == "coreml":
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            package = Path(folder) / "model.mlpackage"
            program = convert_to_mlpackage(module, inputs, package, precision, deployment_target)
            if program.computed is not None:
                parity = check_parity(program.computed, module, inputs, allowed)
            pack(package, path)
        delegates, operators = 1, program.operators
    else:
        lowered = lower_to_executorch(module, inputs, backend, precision, deployment_target)
        delegates, operators = lowered.delegates, lowered.operators
        if backend in RUNNABLE_BACKENDS:
            parity = check_parity(run(lowered.data, inputs), module, inputs, allowed)
        path.write_bytes(lowered.data)
    return Report(
        delegates=delegates,
        operators=operators,
        max_abs_error=parity.max_abs_error if parity else None,
        max_relative_error=parity.max_relative_error if parity else None,
        tolerance=allowed,
        export_s=time.perf_counter() - started,
    )

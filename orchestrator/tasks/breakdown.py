"""What the latency of networks is made of, by kind of operation."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from luts.format.errors import UsageError
from luts.format.files import write_json
from orchestrator.breakdown.attribution import WHOLE, Attribution, Breakdown, MethodChoice, NetworkBreakdown
from orchestrator.devices.common.device import Device
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.kinds import Kind
from orchestrator.export.lower.quiet import quiet
from orchestrator.export.pool import ExportError
from orchestrator.measure.session import check_runtime
from orchestrator.tasks.models import export_all, files_of
from orchestrator.tasks.networks import Networks, by_name, spec_of
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.tasks.target import Target, greet
from orchestrator.wire.messages import HelloReply

if TYPE_CHECKING:
    from orchestrator.export.lower.removal import Census


def break_down(
    networks: Networks,
    target: Target | str,
    *,
    method: MethodChoice = "both",
    budget_s: float = 120.0,
    seed: int = 0,
    self_test: bool = True,
    workers: int | None = None,
    progress: Progress = silent,
) -> Breakdown:
    """Latency by kind of operation: attention, MLP, convolution and so on.

    Removals are kept as `breakdown.json` in the run's folder, and go on where they were cut off.

    Args:
        networks: One after another; exported first where the cache does not have them.
        target: The device; all else by default if it is its name alone.
        method: ExecuTorch's event tracer, removal of each kind, or both.
        budget_s: Seconds for each network after which no further pass of removals is begun.
        seed: Of the schedule.
        self_test: Ask the device first what settle runs and the company of other models cost.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch, and why there is no trace.

    Raises:
        UsageError: a simulated device, a network or variant that there is not, or no tracer for `tracer`.
        ExportError: a network can't be exported.
        InvalidArtifactError: the device can't run a network.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the device is too noisy.
    """
    target = Target.of(target)
    if target.variant.is_simulated:
        raise UsageError("a simulated device knows blocks alone, no operations; break down on a real one")
    specs = {name: spec_of(network, target.variant) for name, network in by_name(networks).items()}
    with target.found() as device:
        hello, variant = greet(device), target.variant_on(device)
        check_runtime(device.name, hello, variant)
        how = _How(device, variant, hello, method, budget_s, seed, self_test, workers, progress)
        return Breakdown(
            hello.device, variant, tuple(how.network(name, spec) for name, spec in specs.items())
        )


def tracing() -> ModuleType:
    """What traces, loaded without a word: torch logs what it thinks of the types of its quantisation."""
    with quiet():
        return importlib.import_module("orchestrator.breakdown.attribution")


@dataclass(frozen=True)
class _How:
    device: Device
    variant: Variant
    hello: HelloReply
    method: MethodChoice
    budget_s: float
    seed: int
    self_test: bool
    workers: int | None
    progress: Progress

    def network(self, name: str, spec: ExportSpec) -> NetworkBreakdown:
        """One network by the methods asked for."""
        from orchestrator.breakdown.removing import count_parts, removal_specs  # brings torch

        self.progress(Note(f"{name}: looking for what it is made of"))
        parts = count_parts(spec)
        wanted = {WHOLE: spec} if self.method == "tracer" else removal_specs(spec, parts)
        artifacts, unexported = self._exported(wanted)
        attributions = []
        if self.method != "removal":
            attributions += self._traced(name, artifacts[WHOLE])
        if self.method != "tracer":
            attributions.append(self._removed(artifacts, unexported, parts))
        counts = {kind: census.parts for kind, census in parts.items()}
        return NetworkBreakdown(name, artifacts[WHOLE].sha256, counts, tuple(attributions))

    def _exported(self, specs: Mapping[str, ExportSpec]) -> tuple[dict[str, Artifact], dict[str, str]]:
        """Models by id, and why some kinds could not be exported without; the whole network must be."""
        try:
            return export_all(specs, self.workers, self.progress), {}
        except ExportError as error:
            failed = {failure.spec.cache_key: failure.message for failure in error.failures}
            if any(not failure.spec.without for failure in error.failures):
                raise
        left = {name: spec for name, spec in specs.items() if spec.cache_key not in failed}
        reasons = {name: failed[spec.cache_key] for name, spec in specs.items() if spec.cache_key in failed}
        return export_all(left, self.workers, self.progress), reasons

    def _traced(self, name: str, artifact: Artifact) -> list[Attribution]:
        """By the tracer; nothing, and a line that says why, where there is none."""
        loaded = tracing()
        reason = loaded.why_untraced(self.hello, self.variant)
        if reason and self.method == "tracer":
            raise UsageError(reason.replace("by removal alone", "use --method removal"))
        self.progress(Note(f"{name}: {reason or 'tracing'}"))
        return [] if reason else [loaded.trace(self.device, self.variant, artifact)]

    def _removed(
        self, artifacts: Mapping[str, Artifact], unexported: Mapping[str, str], parts: Mapping[Kind, Census]
    ) -> Attribution:
        from orchestrator.breakdown.removing import find_removal_run, measure_removals

        files = files_of(artifacts)
        run = find_removal_run(self.device, self.variant, files, self.self_test)
        removed = measure_removals(
            self.device,
            self.variant,
            files,
            parts,
            run,
            unexported,
            budget_s=self.budget_s,
            seed=self.seed,
            self_test=self.self_test,
            progress=steps(self.progress),
        )
        result = run.folder / "breakdown.json"
        write_json(result, removed.to_dict())
        run.finish(str(result))
        return removed

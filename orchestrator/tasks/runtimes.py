"""The same weights in several runtimes of this machine, in one interleaved run, their outputs compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from luts.format.errors import UsageError
from orchestrator.agent.timing import random_inputs
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import HOST_RUNTIMES, Variant
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import check_runtime
from orchestrator.tasks.measured import Setup, setup_of
from orchestrator.tasks.models import check_any_left, files_that_can_be
from orchestrator.tasks.networks import Networks, at_resolution, by_name, spec_of
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.side_by_side import SideBySide, journal_id, measure_what_can_be
from orchestrator.tasks.target import Target, greet
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError

FEWEST_FOR_TAU = 3
"""Networks: the order of two is one pair, which says nothing."""


@dataclass(frozen=True)
class InRuntime:
    """One network in one runtime, with 95 % intervals.

    Attributes:
        ratio: Of its latency to the same network's in ExecuTorch.
        difference: Largest one of its outputs to ExecuTorch's, of their largest absolute value; for ExecuTorch 0.
    """

    model: str
    runtime: str
    ms: float
    ci_low: float
    ci_high: float
    ratio: float
    difference: float
    load_ms: float
    bytes: int


@dataclass(frozen=True)
class MeasuredRuntimes:
    """What was measured together; `tau` is Kendall's between the latencies of two runtimes, with enough networks.

    `versions` are those of the runtimes, `failures` the networks that one of them can't have, with reasons.
    """

    setup: Setup
    versions: Mapping[str, str]
    rows: tuple[InRuntime, ...]
    tau: Mapping[tuple[str, str], float]
    failures: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.setup.to_dict() | {
            "versions": dict(self.versions),
            "models": [asdict(row) for row in self.rows],
            "tau": [{"runtimes": list(pair), "tau": tau} for pair, tau in self.tau.items()],
            "failures": dict(self.failures),
        }


def measure_runtimes(
    networks: Networks,
    target: Target,
    runtimes: Sequence[str],
    *,
    resolution: int | None = None,
    budget_s: float = 120.0,
    seed: int = 0,
    self_test: bool = True,
    workers: int | None = None,
    progress: Progress = silent,
) -> MeasuredRuntimes:
    """Measure networks in ExecuTorch and in other runtimes of the host, all visits of a round in random order.

    Args:
        networks: Exported with the same seeded weights for each; one that any runtime can't have is left out.
        target: The host, with ExecuTorch's variant; the other runtimes get as many threads.
        runtimes: Of `HOST_RUNTIMES`.
        resolution: Side of the input image for all networks; their own by default.
        budget_s: Seconds after which no further pass is begun.
        seed: Of the schedule.
        self_test: Ask the device first what settle runs and the company of other models cost.
        workers: Exporting processes; all cores by default.
        progress: Told of every export and batch.

    Raises:
        UsageError: another device, precision or delegate, or a runtime that is not installed.
        BlocktimeError: no network can be exported for all of them.
    """
    variants = _variants(target, runtimes)
    chosen = {name: at_resolution(name, network, resolution) for name, network in by_name(networks).items()}
    if not chosen:
        raise UsageError("nothing to measure; give --model (or --arch)")
    with target.found() as device:
        hello = greet(device)
        for variant in variants.values():
            check_runtime(device.name, hello, variant)
        files: dict[str, dict[str, ModelFile]] = {name: {} for name in chosen}
        failures: dict[str, str] = {}
        for runtime, variant in variants.items():
            specs = {name: spec_of(network, variant) for name, network in chosen.items()}
            made, _, reasons = files_that_can_be(variant, specs, workers, progress)
            for name, file in made.items():
                files[name][runtime] = replace(file, runtime=runtime)
            failures |= {name: f"{runtime}: {reason}" for name, reason in reasons.items()}
        whole = {name: files[name] for name in chosen if name not in failures}
        for name, reason in failures.items():
            progress(Note(f"{name} is left out: {reason}"))
        flat = {f"{name} {runtime}": file for name, made in whole.items() for runtime, file in made.items()}
        check_any_left(variants["executorch"], flat, failures)
        differences = compare_outputs(device, variants["executorch"], whole)
        together = measure_what_can_be(
            device,
            variants["executorch"],
            flat,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            progress=progress,
        )
    together.run.finish("measured")
    complete = [name for name in whole if not any(f"{name} {r}" in together.failures for r in variants)]
    rows = tuple(
        _row(name, runtime, together, whole[name][runtime], differences[name, runtime])
        for name in complete
        for runtime in variants
    )
    return MeasuredRuntimes(
        setup_of(together.measurement, variants["executorch"]),
        {runtime: hello.runtimes[runtime].version for runtime in variants},
        rows,
        rank_correlations(rows),
        failures | dict(together.failures),
    )


def compare_outputs(
    device: Device, variant: Variant, files: Mapping[str, Mapping[str, ModelFile]]
) -> dict[tuple[str, str], float]:
    """Largest difference of outputs to ExecuTorch's on the same random inputs, by network and runtime.

    Relative to the largest absolute output; infinite where shapes differ or a runtime can't run the network.
    """
    link = DeviceConnection(device, variant.runtime, variant.load_options)
    differences: dict[tuple[str, str], float] = {}
    try:
        for name, made in files.items():
            expected = _outputs(link, made[variant.runtime])
            for runtime, file in made.items():
                differences[name, runtime] = _difference(_outputs(link, file), expected)
    finally:
        link.drop()
    return differences


def rank_correlations(rows: Sequence[InRuntime]) -> dict[tuple[str, str], float]:
    """Kendall's tau between the latencies of the same networks in two runtimes; none of too few networks."""
    from scipy import stats  # a second of every command's start otherwise

    by_runtime: dict[str, list[float]] = {}
    for row in rows:
        by_runtime.setdefault(row.runtime, []).append(row.ms)
    names = list(by_runtime)
    return {
        (a, b): float(stats.kendalltau(by_runtime[a], by_runtime[b]).statistic)
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if len(by_runtime[a]) >= FEWEST_FOR_TAU
    }


def _variants(target: Target, runtimes: Sequence[str]) -> dict[str, Variant]:
    """ExecuTorch's variant and those of the others, by runtime."""
    if target.device != "host":
        raise UsageError(
            f"--runtime {','.join(runtimes)} is for --device host; on {target.device} there is none"
        )
    if target.cores or target.backend or target.precision not in (None, "fp32"):
        raise UsageError(
            "several runtimes are compared in fp32 on cores that the system chooses; leave out --backend, "
            "--precision and --cores"
        )
    own = target.variant
    return {"executorch": own} | {name: Variant(name, "cpu", "fp32", own.threads) for name in runtimes}


def parse_runtimes(text: str | None) -> tuple[str, ...]:
    """`onnx,litert` as names; none where ExecuTorch or Core ML alone is named.

    Raises:
        UsageError: a name among several that is not one of those runtimes.
    """
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    if not set(names) & set(HOST_RUNTIMES):
        return ()
    others = tuple(name for name in names if name != "executorch")
    for name in others:
        if name not in HOST_RUNTIMES:
            raise UsageError(
                f"--runtime {text}: {name!r} can't be measured beside others; there is {', '.join(HOST_RUNTIMES)}"
            )
    return others


def _outputs(link: DeviceConnection, file: ModelFile) -> list[np.ndarray] | None:
    try:
        model = link.load(file)
        try:
            return link.client.check(model.handle, random_inputs(model.inputs))
        finally:
            link.client.unload(model.handle)
    except AgentError:
        return None  # why, the measurement says


def _difference(outputs: list[np.ndarray] | None, expected: list[np.ndarray] | None) -> float:
    if outputs is None or expected is None or [a.shape for a in outputs] != [a.shape for a in expected]:
        return math.inf
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / (np.abs(b).max() or 1.0))
        for a, b in zip(outputs, expected, strict=True)
    )


def _row(name: str, runtime: str, together: SideBySide, file: ModelFile, difference: float) -> InRuntime:
    measurement = together.measurement
    identifier = journal_id(f"{name} {runtime}")
    ms, low, high = measurement.ms(identifier)
    low, high = measurement.reference.widen(ms, low, high)
    return InRuntime(
        model=name,
        runtime=runtime,
        ms=ms,
        ci_low=low,
        ci_high=high,
        ratio=ms / measurement.ms(journal_id(f"{name} executorch"))[0],
        difference=difference,
        load_ms=measurement.loads[identifier].load_ms,
        bytes=Path(file.path).stat().st_size,
    )

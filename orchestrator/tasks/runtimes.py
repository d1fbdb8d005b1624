"""The same weights in several runtimes of this machine, in one interleaved run, their outputs compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import numpy as np

from luts.estimate.statistics import kendall_tau
from luts.format.errors import UsageError
from luts.format.table import Column, Table
from orchestrator.agent.timing import random_inputs
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import HOST_RUNTIMES, Variant
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import check_runtime
from orchestrator.tasks.measured import Setup, measure_together
from orchestrator.tasks.models import check_any_left, exportable_files
from orchestrator.tasks.networks import Network, NetworkOptions, spec_of
from orchestrator.tasks.options import MeasureOptions, target_option
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.target import DeviceOptions, Target, greet
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError

MIN_NETWORKS_FOR_TAU = 3
"""Fewest networks for a rank correlation: two networks are a single pair."""


def parse_runtimes(text: str, flag: str = "--runtime") -> tuple[str, ...]:
    """Return the runtimes of `onnx,litert`, without ExecuTorch, which is always measured."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    others = tuple(name for name in names if name != "executorch")
    if not others or set(others) - set(HOST_RUNTIMES):
        raise UsageError(
            f"{flag} {text[:40]!r}: expected one or more of {', '.join(HOST_RUNTIMES)}, separated by commas",
            code="unknown_runtime",
        )
    return others


@dataclass(frozen=True, kw_only=True)
class RuntimesCommand(MeasureOptions, NetworkOptions):
    """Measure networks in ExecuTorch and in ONNX Runtime or LiteRT on this machine, and compare their outputs.

    Networks run in fp32, on cores that the system chooses.
    """

    target: DeviceOptions
    runtimes: tuple[str, ...] = target_option(
        tuple(HOST_RUNTIMES),
        "Runtimes to compare with ExecuTorch, separated by commas.",
        flag="--runtime",
        parse=parse_runtimes,
        shown=",".join(HOST_RUNTIMES),
        metavar="RUNTIMES",
    )
    threads: int | None = target_option(
        None, "Threads of each runtime.", minimum=1, shown="big cores, or half of all"
    )


@dataclass(frozen=True)
class RuntimeResult:
    """One network in one runtime, with 95 % intervals.

    Attributes:
        ratio: Latency relative to the same network's in ExecuTorch.
        difference: Largest difference of an output from ExecuTorch's, relative to the largest absolute output.
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
    """Networks measured in several runtimes.

    Attributes:
        tau: Kendall's tau between the latencies of two runtimes, given enough networks.
    """

    setup: Setup
    versions: Mapping[str, str]
    rows: tuple[RuntimeResult, ...]
    tau: Mapping[tuple[str, str], float]
    failures: Mapping[str, str]

    COLUMNS: ClassVar = (
        Column("model", "model"),
        Column("runtime", "runtime"),
        Column("ms", "ms", 3),
        Column("ci_low", "95 % low", 3, spare=1),
        Column("ci_high", "high", 3, spare=1),
        Column("ratio", "to ExecuTorch", 3),
        Column("difference", "outputs differ"),
        Column("load_ms", "load ms", 2, spare=2),
        Column("bytes", "bytes", counted=True, spare=3),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return self.setup.to_dict() | {
            "versions": dict(self.versions),
            "models": [asdict(row) for row in self.rows],
            "tau": [{"runtimes": list(pair), "tau": tau} for pair, tau in self.tau.items()],
            "failures": dict(self.failures),
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the latencies, and how similarly two runtimes rank the networks."""
        rows = [asdict(row) | {"difference": f"{row.difference:.1e}"} for row in self.rows]
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        threads = self.setup.variant.threads
        yield Table(f"{self.setup.target}, threads: {threads}, {versions}", self.COLUMNS, rows)
        for (a, b), tau in self.tau.items():
            yield f"Kendall's tau between the latencies in {a} and {b}: {tau:.3f}"


def measure_runtimes(options: RuntimesCommand, progress: Progress = silent) -> MeasuredRuntimes:
    """Measure networks in ExecuTorch and in other runtimes of the host, all calls of a round in random order.

    Networks are exported with the same seeded weights for each; one that a runtime can't run is left out.

    Raises:
        UsageError: another device than the host, no network, or a runtime that is not installed.
        BlocktimeError: no network can be exported for all runtimes.
    """
    if options.target.device != "host":
        raise UsageError(
            f"runtimes are compared on --device host, not on {options.target.device}", code="host_only"
        )
    target = Target("host", agent=options.target.agent, runtime="executorch", threads=options.threads)
    own = target.variant
    variants = {"executorch": own} | {
        name: Variant(name, "cpu", "fp32", own.threads) for name in options.runtimes
    }
    chosen = options.named()
    if not chosen:
        raise UsageError("nothing to measure; name a network", code="no_network")
    with target.found() as device:
        hello = greet(device)
        for variant in variants.values():
            check_runtime(device.name, hello, variant)
        files, failures = _files(chosen, variants, options.workers, progress)
        flat = {f"{name} {runtime}": file for name, made in files.items() for runtime, file in made.items()}
        check_any_left(own, flat, failures)
        differences = compare_outputs(device, own, files)
        together = measure_together(device, own, flat, options, progress=progress)
    together.run.finish("measured")
    for name, reason in together.failures.items():
        progress(Note(f"{name} is left out: {reason}"))
    complete = [name for name in files if not any(f"{name} {r}" in together.failures for r in variants)]
    rows = []
    for name in complete:
        measured = {
            runtime: together.network(f"{name} {runtime}", files[name][runtime]) for runtime in variants
        }
        rows += [
            RuntimeResult(
                model=name,
                runtime=runtime,
                ms=row.ms,
                ci_low=row.ci_low,
                ci_high=row.ci_high,
                ratio=row.ms / measured["executorch"].ms,
                difference=differences[name, runtime],
                load_ms=row.load_ms,
                bytes=files[name][runtime].path.stat().st_size,
            )
            for runtime, row in measured.items()
        ]
    return MeasuredRuntimes(
        Setup.of(together.measurement, own, "host"),
        {runtime: hello.runtimes[runtime].version for runtime in variants},
        tuple(rows),
        rank_correlations(rows),
        failures | dict(together.failures),
    )


def _files(
    networks: Mapping[str, Network], variants: Mapping[str, Variant], workers: int | None, progress: Progress
) -> tuple[dict[str, dict[str, ModelFile]], dict[str, str]]:
    """Return each network's files by runtime, and why others can't be exported for all of them."""
    files: dict[str, dict[str, ModelFile]] = {name: {} for name in networks}
    failures: dict[str, str] = {}
    for runtime, variant in variants.items():
        specs = {name: spec_of(network, variant) for name, network in networks.items()}
        made, _, reasons = exportable_files(variant, specs, workers, progress)
        for name, file in made.items():
            files[name][runtime] = replace(file, runtime=runtime)
        failures |= {name: f"{runtime}: {reason}" for name, reason in reasons.items()}
    for name, reason in failures.items():
        progress(Note(f"{name} is left out: {reason}"))
    return {name: made for name, made in files.items() if name not in failures}, failures


def compare_outputs(
    device: Device, variant: Variant, files: Mapping[str, Mapping[str, ModelFile]]
) -> dict[tuple[str, str], float]:
    """Return the largest difference from ExecuTorch's outputs on the same random inputs, by network and runtime.

    It is relative to the largest absolute output; infinite if shapes differ or a runtime can't run the network.
    """
    differences: dict[tuple[str, str], float] = {}
    with DeviceConnection.opened(device, variant) as link:
        for name, made in files.items():
            expected = _outputs(link, made[variant.runtime])
            for runtime, file in made.items():
                differences[name, runtime] = _difference(_outputs(link, file), expected)
    return differences


def rank_correlations(rows: Sequence[RuntimeResult]) -> dict[tuple[str, str], float]:
    """Return Kendall's tau between the latencies in any two runtimes; empty for too few networks."""
    by_runtime: dict[str, list[float]] = {}
    for row in rows:
        by_runtime.setdefault(row.runtime, []).append(row.ms)
    return {
        (a, b): tau
        for a, b in itertools.combinations(by_runtime, 2)
        if len(by_runtime[a]) >= MIN_NETWORKS_FOR_TAU
        and (tau := kendall_tau(by_runtime[a], by_runtime[b])) is not None
    }


def _outputs(link: DeviceConnection, file: ModelFile) -> list[np.ndarray] | None:
    try:
        model = link.load(file)
        try:
            return link.client.check(model.handle, random_inputs(model.inputs))
        finally:
            link.client.unload(model.handle)
    except AgentError:
        return None  # the measurement reports why


def _difference(outputs: list[np.ndarray] | None, expected: list[np.ndarray] | None) -> float:
    if outputs is None or expected is None or [a.shape for a in outputs] != [a.shape for a in expected]:
        return math.inf
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / (np.abs(b).max() or 1.0))
        for a, b in zip(outputs, expected, strict=True)
    )

"""Networks as their authors wrote them and as they are rewritten before lowering: delegates, latency ratios."""

from __future__ import annotations

import tempfile
import timeit
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luts.format.files import write_atomically
from luts.format.provenance import ROOT
from luts.format.schema import Floats
from orchestrator.agent.binding import BindingLoader
from orchestrator.agent.device import usable_cores
from orchestrator.agent.runtime import read_pte
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.operators import read_operators
from orchestrator.export.lower.source import build_module
from orchestrator.plan.operators import NETWORKS
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.target import Target
from search.spaces import load_arch
from tools.benchmarks.torch_host import ratio_of_medians
from tools.tables import Interval, Tables, log, run_parallel

ARCH = "autovit-xxs-paper"
THREADS = (1, 2)
BUDGET_S = 120.0
"""Time of each measurement."""

PROGRAMS = ROOT / "build" / "delegates"
"""Where `delegates` leaves networks of timm as written."""
CALLS, WARM_UP = 25, 3
"""Timed calls of each program of a network, in turn, and those before."""


def lower_twice(network: str, spec: ExportSpec, folder: Path = PROGRAMS) -> dict[str, Any]:
    """Lower a network as written and export it, unless the programs are there; return a row of a table."""
    file = folder / f"{network}.pte"
    if not file.exists():
        write_atomically(file, lower_to_executorch(*build_module(spec), plain=True).data)
    report, plain = export_spec(spec, ArtifactCache()).report, read_pte(file)
    log(f"lowered {network}")
    return {
        "network": network,
        "delegates as written": sum(delegate.count for delegate in plain.delegates),
        "outside as written": sum(plain.operators.values()),
        "delegates rewritten": report.delegates,
        "outside rewritten": sum(count for _, count in report.operators),
        "still outside": ", ".join(f"{count} {name.split('.')[1]}" for name, count in report.operators),
        "relative error": report.max_relative_error,
    }


def programs_of(network: str, spec: ExportSpec, folder: Path = PROGRAMS) -> list[Path]:
    """Return the files of a network as its authors wrote it and rewritten, as far as they are there."""
    exported = ArtifactCache().get(spec)
    return [
        file for file in (folder / f"{network}.pte", exported and exported.path) if file and file.exists()
    ]


def measure_twice(files: Sequence[Path], device: str, budget_s: float, threads: int) -> dict[str, Any]:
    """Measure both programs of a network, interleaved; return a row of a table."""
    target = Target(device, threads=threads)
    command = MeasureCommand(files=tuple(files), target=target, budget_s=budget_s)
    before, after = measure_networks(command, log).networks
    return {"ms as written": before.ms, "ratio": Interval(after.ratio, after.ratio_low, after.ratio_high)}


def main(arch: str = ARCH, device: str = "host", budget_s: float = BUDGET_S) -> Tables:
    """Lower a network of ours both ways, and measure it for each number of threads."""
    with tempfile.TemporaryDirectory() as folder:
        spec = ExportSpec(load_arch(arch).keys())
        row = lower_twice(arch, spec, Path(folder))
        files = programs_of(arch, spec, Path(folder))
        rows = [
            row | {"threads": threads} | measure_twice(files, device, budget_s, threads)
            for threads in THREADS
        ]
    return {"Latency of a rewritten network, as a ratio to that as written": rows}


def delegates() -> Tables:
    """Lower networks of timm both ways; resumes an interrupted run."""
    rows = run_parallel(_lower_timm, [name for _, name in NETWORKS], usable_cores())
    return {"Networks of timm inside XNNPACK's delegates": rows}


def _lower_timm(network: str) -> dict[str, Any]:
    return lower_twice(network, ExportSpec(module=f"timm:{network}"))


def delegate_latencies() -> Tables:
    """Call both programs of each network that `delegates` lowered in turn, unless they have the same operators.

    Ratios are of medians, with bootstrap intervals over calls, on one thread in this process.
    """
    rows = []
    for _, network in NETWORKS:
        files = programs_of(network, ExportSpec(module=f"timm:{network}"))
        if len({read_operators(file) for file in files}) == 2:
            before, after = call_in_turn(files).T
            ratio = ratio_of_medians(after, before)
            rows.append({"network": network, "ms as written": float(np.median(before)), "ratio": ratio})
            log(f"{network}: {ratio}")
    return {"Latency of the rewritten networks, as a ratio to that as written": rows}


def call_in_turn(files: Sequence[Path]) -> Floats:
    """Return ms (CALLS, programs) of programs for ExecuTorch, called in turn on one thread in this process."""
    loader = BindingLoader()
    loader.set_threads(1)
    models, drawn = [loader.load(file, False) for file in files], np.random.default_rng(0)
    for model in models:
        model.bind([drawn.standard_normal(each.shape).astype(each.dtype) for each in model.inputs])()
    turns = [[timeit.timeit(model.execute, number=1) for model in models] for _ in range(WARM_UP + CALLS)]
    for model in models:
        model.close()
    return 1e3 * np.array(turns[WARM_UP:])

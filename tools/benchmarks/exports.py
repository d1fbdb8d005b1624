"""Cost of exports: a plan with the reuse of lowered parts against lowering each network whole; Core ML packages."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.processes import WorkerPool
from orchestrator.export import ArtifactCache, ExportSpec, block_specs_for
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.build import export_spec
from orchestrator.plan.build import make_plan
from search.spaces import get_arch, get_space
from tools.tables import Tables, log

SEED, SAMPLE = 7, 4
BUDGET_S = 900.0
"""Seconds for which the plan is exported with reuse; what is left over is not."""
WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32", "head.fc(in=8,classes=10)@16")
"""Exported first by each process and not counted: the first lowering loads half of torch, or coremltools."""


@dataclass(frozen=True)
class _Export:
    cpu_s: float
    sha256: str


def export_plan(sample: int = SAMPLE, budget_s: float = BUDGET_S) -> Tables:
    """Export a whole plan with reuse of lowered parts, and a sample of it one by one in fresh processes.

    CPU seconds per network to build, lower, check and store it (XNNPACK, fp32).
    """
    with tempfile.TemporaryDirectory() as folder:
        specs = [ExportSpec(model.blocks) for model in make_plan(get_space("autovit-xxs")).models]
        log(f"a plan of {len(specs)} networks with reuse ...")
        reused = _in_fresh_process(specs, folder, budget_s)
        chosen = random.Random(SEED).sample(range(len(reused)), min(sample, len(reused)))
        log(f"{len(chosen)} of them one by one ...")
        whole = [_in_fresh_process([specs[index]], folder, budget_s)[0] for index in chosen]
    rows = []
    for name, exports in (("one by one", whole), ("with reuse", reused)):
        seconds = [export.cpu_s for export in exports]
        rows.append({"exports": name, "networks": len(seconds), "CPU s, mean": statistics.fmean(seconds)})
        rows[-1] |= _spread(seconds)
    equal = sum(reused[index].sha256 == export.sha256 for index, export in zip(chosen, whole, strict=True))
    return {"Exports of a plan": rows, "Files equal byte for byte": [{"equal": equal, "of": len(whole)}]}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "shortest": min(values), "longest": max(values)}


def _in_fresh_process(specs: Sequence[ExportSpec], folder: str, budget_s: float) -> list[_Export]:
    with WorkerPool(_start_exporter, (Path(tempfile.mkdtemp(dir=folder)), budget_s), 1) as pool:
        return next(pool.map([specs]))


def _start_exporter(
    _number: int, root: Path, budget_s: float
) -> Callable[[Sequence[ExportSpec]], list[_Export]]:
    import gc

    import torch

    torch.set_num_threads(1)
    export_spec(ExportSpec(WARM_UP), ArtifactCache(root / "warm-up"))
    gc.freeze()

    def export(specs: Sequence[ExportSpec]) -> list[_Export]:
        """Export in one process and cache, which reuses lowered parts, until the budget is used up."""
        exports: list[_Export] = []
        cache, started = ArtifactCache(root / "plan"), time.perf_counter()
        for spec in specs:
            if time.perf_counter() - started > budget_s:
                break
            before = _cpu_s()
            artifact = export_spec(spec, cache)
            exports.append(_Export(_cpu_s() - before, digest(artifact.path)[0]))
        return exports

    return export


def _cpu_s() -> float:
    """Of this process and of the schema compilers that it has run."""
    return sum(os.times()[:4])


BLOCKS = 8
NETWORKS = {"autovit-nano": 6, "autovit-xxs": 3}


def export_coreml() -> Tables:
    """Export everything into an empty cache, one model after the other, in one process.

    `error` is the largest difference to PyTorch, relative to the output's scale. int8: weights and activations.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = ArtifactCache(Path(folder))
        for precision in ("fp16", "int8"):
            export_spec(ExportSpec(WARM_UP[:1], runtime="coreml", precision=precision), cache)
            for name, specs in _subjects(precision).items():
                log(f"{name}, {precision} ...")
                artifacts = [export_spec(spec, cache) for spec in specs]
                row: dict[str, object] = {"models": name, "precision": precision, "n": len(artifacts)}
                row |= {f"s, {key}": s for key, s in _spread([a.report.export_s for a in artifacts]).items()}
                row["KiB, median"] = statistics.median(each.payload_bytes for each in artifacts) / 1024
                row["error, largest"] = max(each.report.max_relative_error or 0.0 for each in artifacts)
                rows.append(row)
    return {"Exports for Core ML": rows}


def _subjects(precision: str) -> dict[str, list[ExportSpec]]:
    rng = random.Random(0)
    blocks = block_specs_for(get_space("autovit-nano"), runtime="coreml", precision=precision)
    subjects = {"autovit-nano, single blocks": rng.sample(blocks, BLOCKS)}
    for name, count in NETWORKS.items():
        archs = [get_space(name).sample(rng) for _ in range(count)]
        if name == "autovit-xxs":
            archs.append(get_arch("autovit-xxs-paper"))
        specs = [ExportSpec(arch.keys(), runtime="coreml", precision=precision) for arch in archs]
        subjects[f"{name}, networks"] = specs
    return subjects

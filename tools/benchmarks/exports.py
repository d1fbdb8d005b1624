"""Cost of exports: a plan with the reuse of lowered parts against lowering each network whole; Core ML packages."""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from orchestrator.export import ArtifactCache, ExportSpec, block_specs_for
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.build import export_spec
from orchestrator.plan.build import make_plan
from search.spaces import get_arch, get_space
from tools.tables import Tables, log

SPACE = "autovit-xxs"
SEED = 7
SAMPLE = 4
BUDGET_S = 900.0
"""Seconds for which the plan is exported with reuse; what is left over is not."""

PLAN_WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32", "head.fc(in=8,classes=10)@16")
"""Exported first by each process and not counted: the first lowering loads half of torch."""


@dataclass(frozen=True)
class _Export:
    cpu_s: float
    sha256: str
    made: str


def export_plan(sample: int = SAMPLE, budget_s: float = BUDGET_S) -> Tables:
    """Export a whole plan with reuse of lowered parts, and a sample of it one by one in fresh processes.

    CPU seconds per network to build, lower, check and store it (XNNPACK, fp32).
    """
    with tempfile.TemporaryDirectory() as folder:
        specs = [ExportSpec(model.blocks) for model in make_plan(get_space(SPACE)).models]
        log(f"a plan of {len(specs)} networks with reuse ...")
        reused = _in_fresh_process(specs, Path(folder), True, budget_s)
        chosen = random.Random(SEED).sample(range(len(reused)), min(sample, len(reused)))
        log(f"{len(chosen)} of them one by one ...")
        whole = [_in_fresh_process([specs[index]], Path(folder), False, budget_s)[0] for index in chosen]
    rows = []
    for name, exports in (
        ("one by one", whole),
        ("with reuse", reused),
        ("last ten with reuse", reused[-10:]),
    ):
        seconds = [export.cpu_s for export in exports]
        rows.append(
            {
                "exports": name,
                "networks": len(seconds),
                "CPU s, mean": statistics.fmean(seconds),
                "median": statistics.median(seconds),
                "shortest": min(seconds),
                "longest": max(seconds),
                "spliced": sum(export.made == "spliced" for export in exports),
            }
        )
    equal = sum(reused[index].sha256 == export.sha256 for index, export in zip(chosen, whole, strict=True))
    return {"Exports of a plan": rows, "Files equal byte for byte": [{"equal": equal, "of": len(whole)}]}


def _in_fresh_process(specs: Sequence[ExportSpec], root: Path, reuse: bool, budget_s: float) -> list[_Export]:
    folder = Path(tempfile.mkdtemp(dir=root))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_export, specs, folder, reuse, budget_s).result()


def _export(specs: Sequence[ExportSpec], root: Path, reuse: bool, budget_s: float) -> list[_Export]:
    """Export until the budget is used up; without reuse each network gets a cache of its own."""
    import gc

    import torch

    from orchestrator.export.build import export_spec

    torch.set_num_threads(1)
    export_spec(ExportSpec(PLAN_WARM_UP), ArtifactCache(root / "warm-up"))
    gc.freeze()
    exports: list[_Export] = []
    started = time.perf_counter()
    for index, spec in enumerate(specs):
        if time.perf_counter() - started > budget_s:
            break
        cache = ArtifactCache(root / ("plan" if reuse else str(index)))
        before = _cpu_s()
        artifact = export_spec(spec, cache)
        cpu_s = _cpu_s() - before
        exports.append(_Export(cpu_s, digest(artifact.path)[0], artifact.report.made))
    return exports


def _cpu_s() -> float:
    """Of this process and of the schema compilers that it has run."""
    return sum(os.times()[:4])


PRECISIONS = ("fp16", "int8")
BLOCKS = 8
NETWORKS = {"autovit-nano": 6, "autovit-xxs": 3}
COREML_WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32",)
"""Exported first and not counted: importing coremltools takes longer than a small export."""


def export_coreml() -> Tables:
    """Export everything into an empty cache, one model after the other, in one process.

    `error` is the largest difference to PyTorch, relative to the output's scale. int8: weights and activations.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cache = ArtifactCache(Path(folder))
        for precision in PRECISIONS:
            export_spec(ExportSpec(COREML_WARM_UP, runtime="coreml", precision=precision), cache)
            for name, specs in _subjects(precision).items():
                log(f"{name}, {precision} ...")
                artifacts = [export_spec(spec, cache) for spec in specs]
                seconds = [artifact.report.export_s for artifact in artifacts]
                rows.append(
                    {
                        "models": name,
                        "precision": precision,
                        "n": len(artifacts),
                        "seconds, median": statistics.median(seconds),
                        "shortest": min(seconds),
                        "longest": max(seconds),
                        "KiB, median": statistics.median(each.payload_bytes for each in artifacts) / 1024,
                        "error, largest": max(each.report.max_relative_error or 0.0 for each in artifacts),
                    }
                )
    return {"Exports for Core ML": rows}


def _subjects(precision: str) -> dict[str, list[ExportSpec]]:
    rng = random.Random(0)
    blocks = block_specs_for(get_space("autovit-nano"), runtime="coreml", precision=precision)
    subjects = {"autovit-nano, single blocks": rng.sample(blocks, BLOCKS)}
    for name, count in NETWORKS.items():
        archs = [get_space(name).sample(rng) for _ in range(count)]
        if name == "autovit-xxs":
            archs.append(get_arch("autovit-xxs-paper"))
        subjects[f"{name}, networks"] = [
            ExportSpec(arch.keys(), runtime="coreml", precision=precision) for arch in archs
        ]
    return subjects

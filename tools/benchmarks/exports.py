"""What a plan costs to export with the reuse of lowered parts, against lowering each network whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.artifacts.artifact import digest
from orchestrator.plan.build import make_plan
from search.spaces import get_space

SPACE = "autovit-xxs"
SEED = 7
SAMPLE = 4
BUDGET_S = 900.0
"""Seconds for which the plan is exported with reuse; what is left over is not."""

WARM_UP = ("conv(in=3,out=8,k=3,s=2)@32", "head.fc(in=8,classes=10)@16")
"""Exported first by each process and not counted: the first lowering loads half of torch."""


@dataclass(frozen=True)
class _Export:
    cpu_s: float
    sha256: str
    made: str


def main(sample: int = SAMPLE, budget_s: float = BUDGET_S) -> str:
    """Lower a sample of the plan one by one, export the plan with reuse, and compare files and CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        specs = _plan()
        print(f"a plan of {len(specs)} networks with reuse ...", flush=True)
        reused = _in_fresh_process(specs, Path(folder), True, budget_s)
        done = specs[: len(reused)]
        chosen = random.Random(SEED).sample(range(len(done)), min(sample, len(done)))
        print(f"{len(chosen)} of them lowered one by one ...", flush=True)
        whole = [_in_fresh_process([done[index]], Path(folder), False, budget_s)[0] for index in chosen]
    before = statistics.fmean(export.cpu_s for export in whole)
    after = statistics.fmean(export.cpu_s for export in reused)
    spliced = [export for export in reused if export.made == "spliced"]
    equal = sum(reused[index].sha256 == export.sha256 for index, export in zip(chosen, whole, strict=True))
    late = statistics.median(export.cpu_s for export in reused[-10:])
    return f"""## Exports of a plan

CPU seconds of one process to build, lower, check and keep a network of the whole plan of `{SPACE}`, {len(specs)}
networks (XNNPACK, fp32). One by one: {len(whole)} of them, each in a fresh process without fragments. With reuse:
in the plan's order, from an empty cache, {len(reused)} networks.

| | networks | CPU s a network, mean | median | range |
|---|---|---|---|---|
{_row("one by one", whole)}
{_row("with reuse", reused)}

Amortised ratio: {before / after:.1f}. Spliced: {len(spliced)} of {len(reused)}; median of the last
{len(reused[-10:])}: {late:.2f} s. Files with reuse that are byte for byte the ones lowered one by one: {equal} of
{len(whole)}.
"""


def _plan() -> list[ExportSpec]:
    return [ExportSpec(model.blocks) for model in make_plan(get_space(SPACE)).models]


def _row(name: str, exports: Sequence[_Export]) -> str:
    seconds = [export.cpu_s for export in exports]
    return (
        f"| {name} | {len(seconds)} | {statistics.fmean(seconds):.2f} | {statistics.median(seconds):.2f} "
        f"| {min(seconds):.2f} to {max(seconds):.2f} |"
    )


def _in_fresh_process(specs: Sequence[ExportSpec], root: Path, reuse: bool, budget_s: float) -> list[_Export]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    folder = tempfile.mkdtemp(dir=root)
    child = context.Process(target=_export, args=(theirs, specs, Path(folder), reuse, budget_s), daemon=True)
    child.start()
    theirs.close()
    exports: list[_Export] = ours.recv()
    child.join()
    return exports


def _export(
    connection: Connection, specs: Sequence[ExportSpec], root: Path, reuse: bool, budget_s: float
) -> None:
    """Export until the budget is used up; without reuse each network gets a cache of its own."""
    import gc

    import torch

    from orchestrator.export.build import export_spec

    torch.set_num_threads(1)
    export_spec(ExportSpec(WARM_UP), ArtifactCache(root / "warm-up"))
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
    connection.send(exports)


def _cpu_s() -> float:
    """Of this process and of the schema compilers that it has run."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    print(main())

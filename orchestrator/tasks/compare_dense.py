"""Networks that `bench train --task` trained, in one table: mAP or mIoU beside milliseconds and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from luts.format.files import check_folder
from orchestrator.tasks.candidates import Candidate, split_weights
from orchestrator.tasks.compare import Compared, exported_variant, on_paper, pareto
from orchestrator.tasks.dense_scores import (
    check_precision,
    figures_row,
    judge_network,
    judge_program,
    open_run_scenes,
)
from orchestrator.tasks.judge import RUNS_HERE
from orchestrator.tasks.latencies import Timing, latencies_of
from orchestrator.tasks.models import export_possible, files_of
from orchestrator.tasks.networks import as_named
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.target import Target
from search.dense.scenes import Scenes
from search.dense.training import DenseInfo, is_dense_run, read_info, weights_of
from search.spaces import load_arch
from search.spaces.registry import without_task
from search.supernet.data.images import IMAGENET


def dense_runs(networks: Sequence[str]) -> dict[str, Path]:
    """The runs of `NETWORK:DIR` texts by what they are called in tables; none where none is of a task.

    Raises:
        UsageError: some are and others are not.
    """
    folders = {text: Path(split_weights(text)[1] or ".") for text in dict.fromkeys(networks)}
    runs = {
        text: folder for text, folder in folders.items() if split_weights(text)[1] and is_dense_run(folder)
    }
    if runs and len(runs) < len(folders):
        other = next(text for text in folders if text not in runs)
        raise UsageError(f"{other} is not of `bench train --task`, others are; compare networks of one task")
    return runs


def compare_dense(
    runs: Mapping[str, Path],
    data: str | None,
    timing: Timing | None = None,
    *,
    lowered_for: Target | None = None,
    folder: Path | None = None,
    processes: int = 1,
    workers: int | None = None,
    progress: Progress = silent,
) -> Compared:
    """Judge and measure the networks of runs, all of one task, on the validation images of `data`.

    Args:
        runs: Folders by what they are called.
        data: `coco:DIR` or `voc:DIR`; without any nothing is judged.
        timing: The device; without one nothing is measured.
        lowered_for: For what networks are exported where nothing is measured; the host by default.
        folder: Where measurements are kept; nowhere by default.
        processes: That run exported programs.
        workers: Exporting processes.
        progress: Told of every export, evaluation and batch.

    Raises:
        UsageError: nothing to compare by, runs of two tasks or of other networks than they are called, or images of
            other classes than a head has.
        InvalidArtifactError: a run or an image is damaged.
    """
    if data is None and timing is None:
        raise UsageError("nothing to compare by; give --data, --device or both")
    if folder is not None:
        check_folder(folder)
    infos = {name: read_info(run) for name, run in runs.items()}
    if len({info.task for info in infos.values()}) > 1:
        raise UsageError("a detector beside a segmentation network; compare networks of one task")
    for name, info in infos.items():
        _check_name(name, info)
    scenes = {name: open_run_scenes(info, data) for name, info in infos.items()} if data else {}
    candidates = {
        name: Candidate(as_named(info.network), weights_of(runs[name]), IMAGENET, info.network.resolution)
        for name, info in infos.items()
    }
    variant = exported_variant(timing.target if timing else lowered_for or Target("host"))
    check_precision(variant.precision)
    specs = {name: candidate.spec(variant) for name, candidate in candidates.items()}
    artifacts, failures = export_possible(specs, workers, progress)
    models = files_of(artifacts)
    rows = on_paper(candidates, specs, models, progress)
    for name, row in rows.items() if data else ():
        run, info = runs[name], infos[name]
        if specs[name].runtime == "executorch" and specs[name].backend in RUNS_HERE:
            row |= figures_row(judge_program(models[name].path, info, scenes[name], processes, progress))
        row |= figures_row(judge_network(run, scenes[name], progress=progress), "pytorch_")
    latencies = None
    if timing:
        latencies = latencies_of(candidates, specs, (), models, timing, folder, workers, progress)
        failures = {**failures, **latencies.failures}
        for name, row in rows.items():
            row |= latencies.rows.get(name, {"ms": None})
    table = tuple(rows.values())
    for row, best in zip(table, pareto(table), strict=True):
        row["pareto"] = best
    first = next(iter(infos.values()))
    described = _describe(first, next(iter(scenes.values()))) if scenes else None
    return Compared(table, described, latencies.setup if latencies else None, failures)


def _check_name(text: str, info: DenseInfo) -> None:
    """`UsageError` where a run is not of the network by whose name it is given."""
    name = split_weights(text)[0]
    called, trained = without_task(load_arch(name)), without_task(info.network)
    if (called.space.partition("@")[0], called.stages) != (trained.space.partition("@")[0], trained.stages):
        raise UsageError(f"{text}: the run is of another network, {info.network.to_json()}")


def _describe(info: DenseInfo, scenes: Scenes) -> dict[str, Any]:
    return {
        "source": scenes.title,
        "digest": scenes.digest,
        "split": "validation",
        "images": len(scenes.validation),
        "classes": None,
        "task": info.task,
        "synthetic": scenes.synthetic,
    }

"""mAP and mIoU of trained networks: of the exported program, run by ExecuTorch, and of PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luts.format.errors import UsageError
from orchestrator.accuracy.program import outputs_of_program
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import QUANTISED, Variant
from orchestrator.tasks.export import Lowering
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import as_named, spec_of
from orchestrator.tasks.progress import Progress, Step, silent
from orchestrator.winner.card import weighted
from search.blocks.task_heads import COORDINATES
from search.dense.data import open_scenes, plain_batches
from search.dense.metrics import Figures, Outputs, judge
from search.dense.scenes import Scenes, check_classes
from search.dense.training import DenseInfo, load_run, read_info, weights_of
from search.networks.outputs import default_boxes, levels_of
from search.supernet.model.supernet import choose_device

BATCH = 16
"""Images at a time in PyTorch."""


@dataclass(frozen=True)
class DenseEvaluation:
    """Figures of a run on the validation images; `how`: in PyTorch, or as exported."""

    info: DenseInfo
    scenes: Scenes
    figures: Figures
    how: str


def evaluate_dense(
    run: Path,
    data: str | None = None,
    *,
    precision: str = "",
    on: str = "auto",
    workers: int = 1,
    progress: Progress = silent,
) -> DenseEvaluation:
    """Judge what `bench train --task` trained, on the validation images.

    Args:
        run: Its folder.
        data: Where the images lie now, or others with the same classes.
        precision: `fp32`: of the program exported for XNNPACK; empty: of the network in PyTorch.
        on: `auto`, `cpu`, `cuda` or `mps`, in PyTorch.
        workers: Processes that run the exported program.
        progress: Told how far it is.

    Raises:
        UsageError: no such run, images of other classes, or a precision that needs images for its ranges.
        InvalidArtifactError: run or images are damaged.
        ExportError: it can't be exported.
    """
    info = read_info(run)
    check_precision(precision)
    scenes = open_run_scenes(info, data)
    if precision:
        lowering = Lowering(precision=precision)
        variant = Variant(lowering.runtime, lowering.backend or "xnnpack", precision)
        program = export_all({"network": dense_spec(run, variant)}, 1, progress)["network"]
        figures = judge_program(program.path, info, scenes, workers, progress)
        return DenseEvaluation(info, scenes, figures, f"as exported for XNNPACK in {precision}")
    return DenseEvaluation(info, scenes, judge_network(run, scenes, on, progress), "in PyTorch")


def check_precision(precision: str) -> None:
    """`UsageError` for one whose ranges would have to be taken from images with boxes, which nothing does."""
    if precision in QUANTISED:
        raise UsageError(f"{precision} of a detector or segmentation network is not judged; take fp32")


def open_run_scenes(info: DenseInfo, data: str | None = None) -> Scenes:
    """The images of a run, or others; `UsageError` where their classes are not those of its head."""
    scenes = open_scenes(data or info.source, info.task)
    check_classes(scenes, info.classes)
    return scenes


def dense_spec(run: Path, variant: Variant) -> ExportSpec:
    """How the network of a run is exported with its weights."""
    return weighted(spec_of(as_named(read_info(run).network), variant), weights_of(run))


def judge_program(
    path: Path, info: DenseInfo, scenes: Scenes, workers: int = 1, progress: Progress = silent
) -> Figures:
    """Figures of an exported program; raises as `outputs_of_program`."""
    blocks = info.network.blocks()
    outputs = outputs_of_program(path, scenes, info.task, scenes.validation, _output_shape(info), workers)
    return judge(info.task, scenes, blocks, _told(outputs, "as exported", len(scenes.validation), progress))


@torch.no_grad()
def judge_network(run: Path, scenes: Scenes, on: str = "auto", progress: Progress = silent) -> Figures:
    """Figures of the network of a run in PyTorch."""
    network, info = load_run(run)
    device = choose_device(on)
    network.to(device)
    outputs = (
        (indices, network(images.to(device)))
        for indices, images in plain_batches(scenes, scenes.validation, info.network.resolution, BATCH)
    )
    told = _told(outputs, "in PyTorch", len(scenes.validation), progress)
    return judge(info.task, scenes, info.network.blocks(), told)


def _output_shape(info: DenseInfo) -> tuple[int, ...]:
    """Of one image."""
    blocks = info.network.blocks()
    if info.task == "segmentation":
        return blocks[-1].output_shape
    return 1, len(default_boxes(levels_of(blocks))), len(info.classes) + 1 + COORDINATES


def _told(outputs: Outputs, what: str, count: int, progress: Progress) -> Outputs:
    done = 0
    for indices, output in outputs:
        done += len(indices)
        progress(Step(f"judged {what}", done, count))
        yield np.asarray(indices), output


def figures_row(figures: Figures, prefix: str = "") -> dict[str, Any]:
    """Cells of a table."""
    return {f"{prefix}{name}": share for name, share in figures.to_dict().items()}

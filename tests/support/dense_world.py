"""A small synthetic set with a run of each task on it, for tests of what is done with runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.tasks.train import train_dense
from orchestrator.tasks.train_options import DenseOptions
from search.spaces import Arch, get_space
from search.supernet.data.sources import open_source
from tools.synthetic_coco import make_set


def dense_options(task: Any, folder: Path, output: Path, **changes: Any) -> DenseOptions:
    """A short training for a task on the set in `folder`."""
    values = {"epochs": 1, "batch_size": 2, "warmup_epochs": 0, "on": "cpu", **changes}
    data = f"coco:{folder / 'set'}"
    return DenseOptions(task=task, arch=smallest_backbone(), data=data, output=output, **values)


def smallest_backbone() -> Arch:
    """The smallest network of autovit-nano that a detector can stand on, 64 pixels."""
    return next(arch for arch in get_space("autovit-nano") if len(arch.stages) == 4)


def make_world(folder: Path) -> Path:
    """`set`, `arch.json`, and the runs `detection` and `segmentation`; the folder."""
    make_set(open_source("digits"), folder / "set", train=4, val=3, side=64, objects=2, seed=0)
    backbone = smallest_backbone()
    (folder / "arch.json").write_text(backbone.to_json())
    for task in ("detection", "segmentation"):
        train_dense(dense_options(task, folder, folder / task))
    return folder

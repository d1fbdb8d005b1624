"""A small synthetic set with a run of each task on it, for tests of what is done with runs."""

from __future__ import annotations

from pathlib import Path

from orchestrator.tasks.train_dense import train_dense
from search.dense.training import DenseRecipe
from search.spaces import Arch, get_space
from search.supernet.data.sources import open_source
from tools.synthetic_coco import make_set

RECIPE = DenseRecipe(epochs=1, batch_size=2, warmup_epochs=0)


def smallest_backbone() -> Arch:
    """The smallest network of autovit-nano that a detector can stand on, 64 pixels."""
    return next(arch for arch in get_space("autovit-nano") if len(arch.stages) == 4)


def make_world(folder: Path) -> Path:
    """`set`, `arch.json`, and the runs `detection` and `segmentation`; the folder."""
    make_set(open_source("digits"), folder / "set", train=4, val=3, side=64, objects=2, seed=0)
    backbone = smallest_backbone()
    (folder / "arch.json").write_text(backbone.to_json())
    train_dense("detection", backbone, f"coco:{folder / 'set'}", folder / "detection", RECIPE, on="cpu")
    train_dense("segmentation", backbone, f"coco:{folder / 'set'}", folder / "segmentation", RECIPE, on="cpu")
    return folder

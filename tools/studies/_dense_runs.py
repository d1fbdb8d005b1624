"""What the study of detection trains, all of it kept: backbones, and heads on them on a SYNTHETIC set."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.train import train_supernet
from orchestrator.tasks.train_dense import train_dense
from search.dense.scenes import Task
from search.dense.training import DenseRecipe
from search.spaces import Arch, get_arch, get_space
from search.spaces.tasks import with_task, without_task
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import changed, get_recipe
from tools.studies._options import Options
from tools.studies._processes import side_by_side
from tools.synthetic_coco import make_set

CANVASES, QUICK_CANVASES = (1500, 300, 192), (8, 4, 64)
"""Training and validation canvases, and their side in pixels."""

BACKBONE_EPOCHS = 1
"""Of each backbone on the labelled images, before it gets a head."""

BATCH, QUICK_BATCH = 16, 4


@dataclass(frozen=True)
class Setting:
    """What one run of the study works with."""

    options: Options
    folder: Path

    @classmethod
    def of(cls, options: Options) -> Setting:
        """`UsageError` where no images are named."""
        if options.data is None and not options.quick:
            raise UsageError(
                "this study trains on a set made of labelled images; give --data cifar10:FILE.npz"
            )
        return cls(options, runs_root() / "studies" / ("detection-quick" if options.quick else "detection"))

    @property
    def labelled(self) -> str:
        """Text of the labelled images."""
        return self.options.data or "digits"

    def backbones(self) -> dict[str, Arch]:
        """Two networks of ours, by name."""
        if self.options.quick:
            fit = [arch for arch in get_space("autovit-nano") if len(arch.stages) == 4]
            return {"autovit-nano, smallest": fit[0], "autovit-nano, largest": fit[-1]}
        return {
            "mobilevit-xxs at 160 px": get_arch("mobilevit-xxs").with_resolution(160),
            "autovit-xxs-paper at 192 px": get_arch("autovit-xxs-paper").with_resolution(192),
        }

    def images(self) -> str:
        """The synthetic set, made where it is not there yet."""
        folder = self.folder / "set"
        if not (folder / "annotations" / "instances_val.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            train, val, side = QUICK_CANVASES if self.options.quick else CANVASES
            source = open_source(self.labelled)
            print(
                f"sha256 of the set: {make_set(source, folder, train=train, val=val, side=side, objects=4, seed=0)}"
            )
        return f"coco:{folder}"

    def trained(self, runs: Sequence[tuple[str, Arch, Task, int]]) -> list[Path]:
        """Folders of runs (name, backbone, task, seed), side by side."""
        self.images()
        backbones = list(dict.fromkeys(backbone for _, backbone, _, _ in runs))
        side_by_side(self._pretrain, backbones, self.options)
        return side_by_side(self._train, runs, self.options)

    def _train(self, run: tuple[str, Arch, Task, int], on: str, _number: int) -> Path:
        """From its backbone, which is trained; goes on where it was cut off."""
        name, backbone, task, seed = run
        images, init = self.images(), f"supernet:{self._classifier(backbone)}"
        quick = self.options.quick
        recipe = DenseRecipe(
            epochs=self.options.epochs,
            batch_size=QUICK_BATCH if quick else BATCH,
            warmup_epochs=0.5,
            seed=seed,
        )
        arch = with_task(backbone, task)
        output = self.folder / f"{arch.digest}-{self.options.epochs}-{seed}"
        print(f"{name}, {task}, seed {seed}", flush=True)
        train_dense(task, backbone, images, output, recipe, init=init, on=on)
        return output

    def _pretrain(self, backbone: Arch, on: str, _number: int) -> None:
        changes = {"arch": without_task(backbone).to_json(), "epochs": BACKBONE_EPOCHS}
        if self.options.quick:
            changes["batch_size"] = 512
        recipe = changed(get_recipe("finetune"), changes, {})
        train_supernet(None, self.labelled, self._classifier(backbone), recipe, on=on)

    def _classifier(self, backbone: Arch) -> Path:
        """The folder of its training on the labelled images."""
        return self.folder / f"backbone-{without_task(backbone).digest}"


def curve(run: Path, figure: str) -> list[float]:
    """A figure of every epoch, of a run's `log.csv`."""
    with (run / "log.csv").open(encoding="utf-8") as file:
        return [float(row[figure] or 0) for row in csv.DictReader(file)]

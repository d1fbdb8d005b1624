"""A teacher's answers to the batches of a run, asked for or stored."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from luts.errors import UsageError
from search.supernet.data import ImageData
from search.supernet.distributed import Group
from search.supernet.labels import TOP_K, LabelHeader, StoredLabels, fields_digest
from search.supernet.recipe import NOT_OF_IMAGES, Recipe
from search.supernet.schedule import Schedule
from search.supernet.teacher import Teacher


class Answers:
    """Logits of a teacher for the micro-batches of one process."""

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        data: ImageData,
        schedule: Schedule,
        group: Group,
        folder: Path | None,
    ):
        """`folder`: of stored labels; None to ask the teacher every time.

        Raises:
            UsageError: the recipe makes no batch twice, so that nothing can be stored.
        """
        self.teacher, self.schedule, self._share = teacher, schedule, recipe.micro_batches // group.size
        self._stored: StoredLabels | None = None
        if folder is None:
            return
        if not recipe.augmentation_epochs:
            raise UsageError(
                f"recipe {recipe.name} augments every epoch anew, so no stored label would serve again; "
                "set augmentation_epochs"
            )
        images = recipe.model_dump(mode="json", exclude=set(NOT_OF_IMAGES))
        images |= {
            "split": [data.seed, data.fraction],
            "side": data.side,
            "resolutions": schedule.resolutions,
        }
        header = LabelHeader(
            teacher=teacher.digest,
            data=data.source.digest,
            images=fields_digest(images),
            classes=data.classes,
            top_k=1 if recipe.distillation.kind == "hard" else min(TOP_K, data.classes),
            steps=schedule.steps_per_epoch * self._share,
            batch=max(schedule.sizes.values()) // recipe.micro_batches,
            part=(group.rank, group.size),
        )
        self._stored = StoredLabels(folder, header, teacher.logits)

    def logits(self, step: int, part: int, images: Tensor) -> Tensor:
        """Z_t, (B, classes), of one of the process's parts of a step; `part` counts among all of the step."""
        if self._stored is None:
            return self.teacher.logits(images)
        number = self.schedule.data_step(step) * self._share + part % self._share
        return self._stored.logits(number, self.schedule.part(step, part).seed, images)

    def flush(self) -> None:
        """Write what is new."""
        if self._stored is not None:
            self._stored.flush()

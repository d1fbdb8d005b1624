"""The teacher logits of a run's batches, asked for or stored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from torch import Tensor

from luts.format.errors import UsageError
from search.supernet.data.images import ImageData
from search.supernet.recipe.recipe import NOT_OF_IMAGES, Recipe
from search.supernet.recipe.schedule import Schedule
from search.supernet.teacher.label_file import TOP_K, LabelHeader
from search.supernet.teacher.stored_labels import StoredLabels
from search.supernet.teacher.teacher import Teacher


class TeacherLogits:
    """Logits of a teacher for the micro-batches of one process."""

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        data: ImageData,
        schedule: Schedule,
        folder: Path | None,
        process: tuple[int, int] = (0, 1),
    ):
        """`folder`: of stored labels, None to ask the teacher every time; `process`: which of how many.

        Raises:
            UsageError: the recipe makes no batch twice, so that nothing can be stored.
        """
        self.teacher, self.schedule = teacher, schedule
        self._share = recipe.micro_batches // process[1]
        self._stored: StoredLabels | None = None
        if folder is None:
            return
        if not recipe.augmentation_epochs:
            raise UsageError(
                f"recipe {recipe.name} augments every epoch anew, so no stored label would serve again; "
                "set augmentation_epochs"
            )
        header = LabelHeader(
            teacher=teacher.digest,
            data=data.source.digest,
            images=_images_digest(recipe, data, schedule),
            classes=data.classes,
            top_k=1 if recipe.distillation.kind == "hard" else min(TOP_K, data.classes),
            steps=schedule.steps_per_epoch * self._share,
            batch=max(schedule.sizes.values()) // recipe.micro_batches,
            part=process,
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


def _images_digest(recipe: Recipe, data: ImageData, schedule: Schedule) -> str:
    """sha256 of everything that decides which image comes when, and its augmentation."""
    fields = recipe.model_dump(mode="json", exclude=set(NOT_OF_IMAGES))
    fields |= {
        "split": [data.seed, data.fraction],
        "side": data.side,
        "resolutions": schedule.resolutions,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

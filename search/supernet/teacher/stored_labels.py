"""A folder of teacher logits, stored once for each batch, so that later epochs and runs need no teacher."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from luts.format.errors import UsageError
from search.supernet.teacher.label_file import LabelFile, LabelHeader


class StoredLabels:
    """Logits of a teacher by batch: read where they are stored, else asked for and stored.

    The teacher is asked for what is missing only.
    """

    def __init__(self, directory: Path, header: LabelHeader, ask: Callable[[Tensor], Tensor]):
        """`ask`: images (B, 3, H, W) -> logits (B, classes)."""
        self.directory, self.header, self._ask = directory, header, ask
        self._epoch: LabelFile | None = None

    def logits(self, data_step: int, seed: int, images: Tensor) -> Tensor:
        """Z_t, (B, classes), of a batch: stored ones rounded to half precision and completed from the largest k.

        Args:
            data_step: Number of the batch since the first epoch; one that comes again has the same.
            seed: Of its augmentation.
            images: The batch, for the teacher.

        Raises:
            InvalidArtifactError: the stored labels are damaged.
            UsageError: they belong to another teacher, other images or another augmentation.
            BlocktimeError: an epoch can't be written.
        """
        number, step = divmod(data_step, self.header.steps)
        epoch = self._open(number)
        stored_seed = epoch.seed(step)
        if stored_seed is None:
            logits = self._ask(images)
            expected = (len(images), self.header.classes)
            if logits.shape != expected or len(images) > self.header.batch:
                raise ValueError(f"{tuple(logits.shape)} logits of the teacher, expected {expected}")
            epoch.keep(step, seed, logits)
        elif stored_seed != seed:
            raise UsageError(
                f"{epoch.path}: batch {step} was augmented with another seed; use another folder"
            )
        return epoch.logits(step, len(images)).to(images.device)

    def flush(self) -> None:
        """Write what is new; a run that dies afterwards goes on from here."""
        if self._epoch is not None and self._epoch.changed:
            self._epoch.write()

    def _open(self, number: int) -> LabelFile:
        part, parts = self.header.part
        path = self.directory / f"epoch-{number:05d}-part-{part}-of-{parts}.safetensors"
        if self._epoch is None or self._epoch.path != path:
            self.flush()
            self._epoch = LabelFile(self.header, path)
        return self._epoch

"""The checkpoints of a run in its folder: the last one, and beside it the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.code_version import code_version
from search.supernet.train.checkpoint import TrainingState, resume, save_checkpoint
from search.supernet.train.checkpoint_info import INFO_FILE, Change, CheckpointInfo, check_same_run, read_info

BEST = "best"
"""Folder, in that of a run, of its best checkpoint."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run is saved and goes on from.

    Attributes:
        fields: What `checkpoint_info.fields_of_run` gives for the run.
    """

    directory: Path
    state: TrainingState
    fields: Mapping[str, Any]

    def resume(self) -> CheckpointInfo | None:
        """Put the last checkpoint into the state; None where there is none.

        Raises:
            InvalidArtifactError: it is damaged or of another space.
            UsageError: it is of another run.
        """
        if not (self.directory / INFO_FILE).exists():
            return None
        info = resume(self.directory, self.state)
        check_same_run(self.directory, info, self.fields)
        return info

    def save(
        self,
        step: int,
        loss: float | None,
        scaler: Mapping[str, Any],
        held_out_top1: float,
        changes: tuple[Change, ...] = (),
    ) -> CheckpointInfo:
        """Write the checkpoint, and the best one where this is better than that; raises StorageError."""
        fields = {
            **self.fields,
            "step": step,
            "loss": loss,
            "scaler": scaler,
            "held_out_top1": held_out_top1,
            "changes": changes,
            "code": code_version(),
        }
        best = self.directory / BEST
        if not (best / INFO_FILE).exists() or held_out_top1 > (read_info(best).held_out_top1 or 0.0):
            save_checkpoint(best, self.state, fields)
        return save_checkpoint(self.directory, self.state, fields)

"""`log.csv` of a run: one row an epoch, none twice, with its figures on the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from search.supernet.train.logs import CsvRows

COLUMNS = ("epoch", "step", "images", "learning_rate", "loss")


class EpochLog:
    """Appends rows; those of epochs that come again are dropped."""

    def __init__(self, path: Path, epochs: int, figures: tuple[str, ...]):
        """Go on after so many whole epochs.

        Raises:
            InvalidArtifactError: there is a file of another kind.
            StorageError: it can't be written.
        """
        self._rows = CsvRows(path, (*COLUMNS, *figures), epochs)

    def note(
        self,
        epoch: int,
        step: int,
        synthetic: bool,
        learning_rate: float,
        loss: float,
        figures: Mapping[str, float | None],
    ) -> None:
        """Write the row of an epoch, counted from 1."""
        shares = ("" if share is None else f"{share:.6f}" for share in figures.values())
        kind = "synthetic" if synthetic else "given"
        self._rows.append((epoch, step, kind, f"{learning_rate:.6g}", f"{loss:.5f}", *shares))

"""Where it is kept what evaluations say of a supernet: in its folder, or in the cache where that is read only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.export.artifacts.artifact import default_root
from orchestrator.tasks.progress import Note, Progress, silent


@dataclass(frozen=True)
class Notes:
    """The folder that new notes go into, and that of a shared supernet, whose notes are read too."""

    folder: Path
    shared: Path | None = None

    @classmethod
    def of(
        cls, supernet: Path, weights_sha256: str, files: tuple[str, ...], progress: Progress = silent
    ) -> Notes:
        """The notes in these files about a supernet with these weights.

        Args:
            supernet: Its folder, which every search with it writes into where that is allowed.
            weights_sha256: Its identity, which names the folder in the cache.
            files: Names of the files that will be written.
            progress: Told where the notes go, if elsewhere.
        """
        places = [supernet, *(supernet / name for name in files)]
        if all(os.access(place, os.W_OK, effective_ids=True) for place in places if place.exists()):
            return cls(supernet)
        folder = default_root() / "supernets" / weights_sha256
        progress(Note(f"note: {supernet} can't be written; what is learnt of it is kept in {folder}"))
        return cls(folder, supernet)

    def file(self, name: str) -> Path:
        """The file that is written."""
        return self.folder / name

    def shared_file(self, name: str) -> Path | None:
        """That of the shared supernet, if there is one."""
        path = self.shared / name if self.shared else None
        return path if path is not None and path.exists() else None

"""Trained supernets as tasks use them: opened for evaluation, their scope, and where their results are stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.export.artifacts.artifact import default_root
from orchestrator.tasks.progress import Note, Progress, silent
from search.spaces import Arch
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.recipe.recipe import only_arch
from search.supernet.train.checkpoint import CheckpointInfo, load_supernet


def trained_alone(evaluator: InheritedAccuracy, supernet: Path) -> Arch:
    """Return the network of a folder of `bench train --arch`.

    Raises:
        UsageError: the folder has the weights of many networks.
    """
    only = only_arch(evaluator.info.recipe, evaluator.supernet.space)
    if only is None:
        raise UsageError(
            f"{supernet} has the weights of many networks; name one with --arch", code="missing_network"
        )
    return only


def check_scope(arch: Arch, supernet: Path, info: CheckpointInfo) -> None:
    """Raise UsageError where a supernet was not trained on an architecture, which has its images' classes.

    Other networks than one that was trained alone are refused elsewhere.
    """
    if info.scope is None or info.recipe.arch is not None or arch.space != info.space:
        return
    if excluded := info.scope.excluded_property(arch):
        raise UsageError(
            f"{arch.space} with {excluded} is outside of what {supernet} was trained on: {info.scope}; "
            "choose another, or add --outside, but expect low accuracy",
            code="outside_scope",
        )


def open_evaluator(
    supernet: Path, data: str | None = None, *, final: bool = False, progress: Progress = silent
) -> InheritedAccuracy:
    """Open a trained supernet for evaluation, on the images that it was trained on or their new place `data`."""
    network, info = load_supernet(supernet)
    if not info.finished:
        progress(Note(f"note: the training of {supernet} is not finished ({info.step} steps)"))
    if info.scope is None:
        progress(Note(f"note: {supernet} does not record which subnets it was trained on"))
    return InheritedAccuracy(network, info, reopen_data(info, data), final=final)


@dataclass(frozen=True)
class Notes:
    """Where results about a supernet are stored: its folder, or the cache where that is read-only.

    Attributes:
        folder: Gets new results.
        shared: Folder of a read-only supernet, whose results are read too.
    """

    folder: Path
    shared: Path | None = None

    @classmethod
    def of(
        cls, supernet: Path, weights_sha256: str, files: tuple[str, ...], progress: Progress = silent
    ) -> Notes:
        """Return where results about a supernet go.

        Args:
            supernet: Its folder.
            weights_sha256: Digest of its weights, which names the folder in the cache.
            files: Names of the files that will be written.
            progress: Gets a note if results go to the cache.
        """
        places = [supernet, *(supernet / name for name in files)]
        if all(os.access(place, os.W_OK, effective_ids=True) for place in places if place.exists()):
            return cls(supernet)
        folder = default_root() / "supernets" / weights_sha256
        progress(Note(f"note: {supernet} is read-only; results about it are stored in {folder}"))
        return cls(folder, supernet)

    def file(self, name: str) -> Path:
        """Return the file to write."""
        return self.folder / name

    def shared_file(self, name: str) -> Path | None:
        """Return the file of the read-only supernet, if there is one."""
        path = self.shared / name if self.shared else None
        return path if path is not None and path.exists() else None

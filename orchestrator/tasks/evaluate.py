"""The accuracy that an architecture inherits from a supernet."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.export.artifacts.artifact import default_root
from orchestrator.tasks.progress import Note, Progress, silent
from search.spaces import Arch, load_arch
from search.supernet.inherit import (
    FINAL_FILE,
    FinalScore,
    InheritedAccuracy,
    Scores,
    record_final,
    reopen_data,
)
from search.supernet.recipe.recipe import only_arch
from search.supernet.train.checkpoint import CheckpointInfo, load_supernet


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


@dataclass(frozen=True)
class Evaluation:
    """Scores of an architecture on a part of the images: `search`, or `validation` for a final evaluation."""

    arch: Arch
    split: str
    scores: Scores


def evaluate(
    arch: Arch | str | None,
    supernet: Path,
    data: str | None = None,
    *,
    final: bool = False,
    outside: bool = False,
    on: str = "auto",
    scored: Callable[[InheritedAccuracy, Arch], Scores] = InheritedAccuracy.scores,
    progress: Progress = silent,
) -> Evaluation:
    """Judge an architecture with weights inherited from a trained supernet.

    Args:
        arch: Of the supernet's space, with any number of classes; or its name, or its JSON file;
            None for the one that was trained alone.
        supernet: Folder of its checkpoint.
        data: Where the images lie now, if elsewhere than the checkpoint says.
        final: On the validation set, which is for use once, at the end; the supernet's notes keep count.
        outside: Judge it even if it is none of the subnets that were trained.
        on: `auto`, `cpu`, `cuda` or `mps`: where it is judged.
        scored: How: in PyTorch, or by `orchestrator.tasks.exported_scores.as_exported`.
        progress: Told of an unfinished supernet or one of unknown scope, and of a validation set that was used
            before.

    Raises:
        UsageError: it is of another space, or outside of what was trained, or there is none but many were trained.
    """
    named = load_arch(arch) if isinstance(arch, str) else arch
    evaluator = open_evaluator(supernet, data, final=final, progress=progress)
    arch = (named or trained_alone(evaluator, supernet)).with_classes(evaluator.data.classes)
    if not outside:
        check_scope(arch, supernet, evaluator.info)
    evaluator.move_to(on)
    scores = scored(evaluator, arch)
    if final:
        weights = evaluator.info.weights_sha256
        score = FinalScore(arch=arch.to_json(), weights_sha256=weights, top1=scores.top1, top5=scores.top5)
        notes = Notes.of(supernet, weights, (FINAL_FILE,), progress)
        if others := record_final(notes.file(FINAL_FILE), score, notes.shared_file(FINAL_FILE)):
            progress(
                Note(
                    f"note: the validation set has judged {others} other architectures of this supernet before; "
                    "choose none of them by it, the search split is for that"
                )
            )
    return Evaluation(arch, evaluator.split_name, scores)


def trained_alone(evaluator: InheritedAccuracy, supernet: Path) -> Arch:
    """The network of a folder of `bench train --arch`; `UsageError` for one of many networks."""
    only = only_arch(evaluator.info.recipe, evaluator.supernet.space)
    if only is None:
        raise UsageError(f"{supernet} holds the weights of many networks; name one with --arch")
    return only


def check_scope(arch: Arch, supernet: Path, info: CheckpointInfo) -> None:
    """`UsageError` where a supernet is known not to be trained on an architecture, with the classes of its images.

    Of a network that was trained alone others are refused elsewhere.
    """
    if info.scope is None or info.recipe.arch is not None or arch.space != info.space:
        return
    if excluded := info.scope.excluded_property(arch):
        raise UsageError(
            f"{arch.space} with {excluded} lies outside of what {supernet} was trained on: {info.scope}; "
            "choose another, or add --outside, and expect little of its weights"
        )


def open_evaluator(
    supernet: Path, data: str | None = None, *, final: bool = False, progress: Progress = silent
) -> InheritedAccuracy:
    """Inherited accuracies of a trained supernet, on the images that it was trained on unless told otherwise."""
    network, info = load_supernet(supernet)
    if not info.finished:
        progress(Note(f"note: {supernet} is not trained to its end yet ({info.step} steps)"))
    if info.scope is None:
        progress(Note(f"note: {supernet} does not say which subnets it was trained on, its scope is unknown"))
    return InheritedAccuracy(network, info, reopen_data(info, data), final=final)

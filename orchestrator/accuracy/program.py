"""Predictions of networks and exported programs: PyTorch, ExecuTorch, Core ML evaluated in PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.accuracy.images import ImageSet
from orchestrator.accuracy.predictions import Guesses, Keep, guesses_of, in_processes
from orchestrator.agent.runtime import Model
from orchestrator.export.artifacts.artifact import PACKED_SUFFIX
from orchestrator.wire.errors import OpError
from search.dense.data import open_scenes, plain_batches
from search.dense.scenes import Scenes, Task

SUFFIXES = (".mlpackage", PACKED_SUFFIX)
"""Of Core ML packages: folders, and zips of one."""

PART = 100
"""Images of one task: seconds of work, so that little is lost and processes end together."""


def guess_with_program(
    path: Path,
    images: ImageSet,
    *,
    workers: int = 1,
    known: Guesses | None = None,
    keep: Keep = lambda _: None,
) -> Guesses:
    """What a model says of images, each on its own: a .pte run by the runtime that phones have, a Core ML package
    evaluated by `orchestrator.accuracy.package`.

    Args:
        path: Takes one image (1, 3, side, side) in fp32 and gives logits (1, outputs).
        images: With the normalization that its weights were trained with; scaled to its input.
        workers: Processes, each with one thread.
        known: Guesses of the first images from before; it goes on behind them.
        keep: Told of what is known so far, so that it can be kept.

    Raises:
        UnknownOperatorError: a Core ML program has an operator that is not known here.
        InvalidArtifactError: it is damaged, not a classifier of images, or ends the process that runs it; or an
            image can't be read.
    """
    done = 0 if known is None else len(known.first)
    tasks = [
        (start, min(start + PART, len(images.indices))) for start in range(done, len(images.indices), PART)
    ]
    for part in in_processes(_serve, (path, images), tasks, workers):
        first = part.first if known is None else np.concatenate((known.first, part.first))
        known = Guesses(first, part.outputs)
        keep(known)
    if known is None:
        raise ValueError("no images")
    return known


def _serve(connection: Connection, path: Path, images: ImageSet) -> None:
    try:
        model = _classifier(path)
        while True:
            connection.send(_guesses(model, path, images, *connection.recv()))
    except EOFError:
        return
    except BlocktimeError as error:
        connection.send(error)


class Classifier(Protocol):
    """Of one image (1, 3, side, side)."""

    side: int
    outputs: int

    def logits(self, image: np.ndarray) -> np.ndarray:
        """(1, outputs)."""


class _Program:
    """A .pte in this process."""

    def __init__(self, path: Path):
        self._model = _load_classifier(path)
        self.side: int = self._model.inputs[0].shape[-1]
        self.outputs: int = self._model.outputs[0].shape[-1]

    def logits(self, image: np.ndarray) -> np.ndarray:
        self._model.prepare([image])()
        self._model.execute()
        logits: np.ndarray = self._model.get_outputs()[0]
        return logits


def _classifier(path: Path) -> Classifier:
    if not path.name.endswith(SUFFIXES):
        return _Program(path)
    from orchestrator.accuracy.package import PackageClassifier  # brings coremltools

    return PackageClassifier(path)


def load_program(path: Path) -> Model:
    """A program that takes one image (1, 3, side, side) in fp32, with one thread.

    Raises:
        InvalidArtifactError: it can't be read, or takes anything else.
    """
    from orchestrator.agent.executorch import ExecutorchRuntime, find_loader

    try:
        with _silent_libraries():
            model = ExecutorchRuntime(find_loader()).load(path, {"threads": 1})
    except OpError as error:
        raise InvalidArtifactError(f"{path}: {error}") from None
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot read the model ({error.strerror})") from None
    kinds = {spec.dtype for spec in (*model.inputs, *model.outputs)}
    match [tuple(spec.shape) for spec in model.inputs]:
        case [(1, 3, height, width)] if height == width and kinds == {"float32"}:
            return model
    raise _foreign(path, model, "does not take one image: expected (1, 3, side, side)")


def _load_classifier(path: Path) -> Model:
    model = load_program(path)
    match [tuple(spec.shape) for spec in model.outputs]:
        case [(1, _)]:
            return model
    raise _foreign(path, model, "is not a classifier: expected (1, 3, side, side) in and (1, classes) out")


def _foreign(path: Path, model: Model, why: str) -> InvalidArtifactError:
    return InvalidArtifactError(
        f"{path} {why} in "
        f"float32, it has {', '.join(f'{spec.dtype}{tuple(spec.shape)}' for spec in model.inputs)} in and "
        f"{', '.join(f'{spec.dtype}{tuple(spec.shape)}' for spec in model.outputs)} out"
    )


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Libraries write to nobody: where another part of the process has set ExecuTorch's log up before, the runtime
    says so on every load. What fails is an error all the same."""
    before, nobody = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nobody, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nobody)


def _guesses(model: Classifier, path: Path, images: ImageSet, start: int, stop: int) -> Guesses:
    logits = [model.logits(image) for image in images.batches(model.side, start, stop, 1)]
    try:
        return Guesses(guesses_of(np.concatenate(logits)), model.outputs)
    except InvalidArtifactError as error:
        raise InvalidArtifactError(f"{path}: {error}") from None


DENSE_PART = 16
"""Images of one task: outputs of a few megabytes cross processes at once."""


def outputs_of_program(
    path: Path, scenes: Scenes, task: Task, indices: np.ndarray, shape: tuple[int, ...], workers: int = 1
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """What a .pte gives for images, each run on its own, as phones run it; images normalised as ImageNet's.

    Args:
        path: Takes one image (1, 3, side, side) in fp32.
        scenes: The images, opened anew in every process by their text.
        task: For which they are opened.
        indices: Of the images.
        shape: Of the output that the program must have, the batch's 1 first.
        workers: Processes, each with one thread.

    Raises:
        InvalidArtifactError: it is damaged, of another shape, or ends the process that runs it; or an image is.
    """
    parts = [indices[start : start + DENSE_PART] for start in range(0, len(indices), DENSE_PART)]
    arguments = (path, scenes.name, scenes.digest, task, shape)
    for part, outputs in zip(
        parts, in_processes(_serve_dense_program, arguments, parts, workers), strict=True
    ):
        yield part, torch.from_numpy(outputs)


def _serve_dense_program(
    connection: Connection, path: Path, text: str, digest: str, task: Task, shape: tuple[int, ...]
) -> None:
    try:
        scenes = open_scenes(text, task)
        if scenes.digest != digest:
            raise UsageError(f"{text} has changed while it was read; begin anew")
        model = load_program(path)
        given = [tuple(spec.shape) for spec in model.outputs]
        if given != [shape]:
            raise InvalidArtifactError(f"{path} gives {given}, expected {[shape]}; export it again")
        while True:
            outputs = []
            for _, images in plain_batches(scenes, connection.recv(), int(model.inputs[0].shape[-1]), 1):
                model.prepare([images.numpy()])()
                model.execute()
                outputs.append(model.get_outputs()[0].reshape(shape))
            connection.send(np.concatenate(outputs))
    except EOFError:
        return
    except BlocktimeError as error:
        connection.send(error)

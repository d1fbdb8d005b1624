"""Outputs of exported programs for images: ExecuTorch on this machine, and Core ML evaluated in PyTorch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.processes import WorkerCrashError, WorkerPool
from orchestrator.accuracy.predictions import ImageSet, OnPredictions, Predictions
from orchestrator.agent.runtime import Model
from orchestrator.export.artifacts.artifact import PACKED_SUFFIX, deliver
from orchestrator.wire.errors import AgentError
from search.dense.data import open_scenes, plain_batches
from search.dense.scenes import DenseTaskName, Scenes

PACKAGE_SUFFIXES = (".mlpackage", PACKED_SUFFIX)
"""Suffixes of Core ML packages: folders, and zips of one."""

IMAGES_PER_TASK = 100
"""Seconds of work, so that little is lost at an interrupt and workers end together."""

DENSE_IMAGES_PER_TASK = 16
"""Outputs of a few megabytes cross processes at once."""


class ImageClassifier(Protocol):
    """Classifies one image (1, 3, side, side)."""

    side: int
    outputs: int

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return (1, outputs)."""


class ProgramClassifier:
    """A .pte file with one thread; InvalidArtifactError if it is damaged or not a classifier of one image.

    A second output is the map that the tail of a network takes (`ExportSpec.segment`).
    """

    def __init__(self, path: Path, prefix: Path | None = None):
        """Load the program; a tail runs after the `prefix` of its network."""
        first = load_program(prefix or path)
        if prefix and len(first.outputs) != 2:
            raise _unexpected(prefix, first, "is not the prefix of a network, with logits and a map out")
        self._models = [first, load_program(path, first.outputs[1].shape)] if prefix else [first]
        shapes = [tuple(spec.shape) for spec in self._models[-1].outputs]
        if list(map(len, shapes)) not in ([2], [2, 4]) or shapes[0][0] != 1:
            raise _unexpected(path, self._models[-1], "is not a classifier, with (1, classes) out")
        self.side: int = first.inputs[0].shape[-1]
        self.outputs: int = shapes[0][1]

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return (1, outputs) of an image (1, 3, side, side)."""
        outputs = [image]
        for model in self._models:
            model.prepare([outputs[-1]])()
            model.execute()
            outputs = model.get_outputs()
        return outputs[0]


class PackageClassifier:
    """A Core ML package, evaluated in PyTorch.

    Weights and the rounding of quantised activations are those of the file; sums are fp32, unlike Core ML's fp16.

    Raises:
        InvalidArtifactError: the package is damaged, or not a classifier of one image.
        UnknownOperatorError: it has an operator that the evaluation does not support.
    """

    def __init__(self, path: Path):
        """Read the package."""
        from orchestrator.export.lower.coreml import evaluate, read_package  # imports coremltools

        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            package = path if path.is_dir() else deliver(path, Path(folder) / "model.mlpackage")
            self._function = read_package(package)
        self._evaluate = evaluate
        self._constants: dict[str, object] = {}
        inputs = [tuple(map(int, variable.shape)) for variable in self._function.inputs.values()]
        outputs = [tuple(map(int, variable.shape)) for variable in self._function.outputs]
        match [*inputs, *outputs]:
            case [(1, 3, height, width), (1, count)] if height == width:
                self.side, self.outputs = height, count
            case _:
                raise InvalidArtifactError(
                    f"{path} is not a classifier of one image: it has {inputs} in and {outputs} out; "
                    "export a classifier",
                    code="not_a_classifier",
                )

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Return (1, outputs) of an image (1, 3, side, side)."""
        (logits,) = self._evaluate(self._function, (torch.from_numpy(image),), constants=self._constants)
        return logits.numpy()


def is_package(path: Path) -> bool:
    """Return whether a file is a Core ML package."""
    return path.name.endswith(PACKAGE_SUFFIXES)


def predict_with_program(
    path: Path,
    images: ImageSet,
    *,
    prefix: Path | None = None,
    workers: int = 1,
    known: Predictions | None = None,
    on_predictions: OnPredictions = lambda _: None,
) -> Predictions:
    """Return an exported model's predictions for images, each run on its own as on phones.

    A .pte or a Core ML package takes one image (1, 3, side, side) in fp32 and gives logits; the .pte of a tail
    takes the map of its network's `prefix`, which runs before it. `known` and `on_predictions` are as in
    `predict_with_network`; each of the `workers` has one thread.

    Raises:
        UnknownOperatorError: a Core ML program has an operator that the evaluation does not support.
        InvalidArtifactError: the model is damaged, not a classifier, or crashes the process that runs it; or an
            image can't be read.
    """
    count = len(images.indices)
    starts = range(len(known) if known else 0, count, IMAGES_PER_TASK)
    tasks = [(start, min(start + IMAGES_PER_TASK, count)) for start in starts]
    for part in _in_workers(_start_classifier, (path, images, prefix), tasks, workers):
        known = known.followed_by(part) if known else part
        on_predictions(known)
    if known is None:
        raise ValueError("no images")
    return known


def _start_classifier(
    _number: int, path: Path, images: ImageSet, prefix: Path | None
) -> Callable[[tuple[int, int]], Predictions]:
    model: ImageClassifier = PackageClassifier(path) if is_package(path) else ProgramClassifier(path, prefix)

    def predict(task: tuple[int, int]) -> Predictions:
        logits = [model.logits(image) for image in images.batches(model.side, *task, 1)]
        try:
            return Predictions.of_logits(np.concatenate(logits))
        except InvalidArtifactError as error:
            raise InvalidArtifactError(f"{path}: {error}", code=error.code) from None

    return predict


def outputs_of_program(
    path: Path,
    scenes: Scenes,
    task: DenseTaskName,
    indices: np.ndarray,
    shape: tuple[int, ...],
    workers: int = 1,
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield indices and raw outputs of a .pte for images, each run on its own as on phones.

    It takes one image (1, 3, side, side) in fp32, normalised like ImageNet's; `shape` is that of its output, the
    batch's 1 first. The scenes are opened again in every process by their text.

    Raises:
        InvalidArtifactError: the program is damaged, of another shape, or crashes the process that runs it; or an
            image is damaged.
    """
    starts = range(0, len(indices), DENSE_IMAGES_PER_TASK)
    parts = [indices[start : start + DENSE_IMAGES_PER_TASK] for start in starts]
    arguments = (path, scenes.name, scenes.digest, task, shape)
    for part, outputs in zip(parts, _in_workers(_start_dense, arguments, parts, workers), strict=True):
        yield part, torch.from_numpy(outputs)


def _start_dense(
    _number: int, path: Path, text: str, digest: str, task: DenseTaskName, shape: tuple[int, ...]
) -> Callable[[np.ndarray], np.ndarray]:
    scenes = open_scenes(text, task)
    if scenes.digest != digest:
        raise UsageError(f"{text} has changed while it was read; start over", code="data_changed")
    model = load_program(path)
    shapes = [tuple(spec.shape) for spec in model.outputs]
    if shapes != [shape]:
        raise InvalidArtifactError(
            f"{path} has outputs {shapes}, expected {[shape]}; export it again", code="wrong_model_shape"
        )

    def run(indices: np.ndarray) -> np.ndarray:
        outputs = []
        for _, images in plain_batches(scenes, indices, int(model.inputs[0].shape[-1]), 1):
            model.prepare([images.numpy()])()
            model.execute()
            outputs.append(model.get_outputs()[0].reshape(shape))
        return np.concatenate(outputs)

    return run


def _in_workers(
    start: Callable[..., Any], arguments: tuple[Any, ...], tasks: Sequence[Any], workers: int
) -> Iterator[Any]:
    try:
        with WorkerPool(start, arguments, workers) as pool:
            yield from pool.map(tasks)
    except WorkerCrashError as error:
        raise InvalidArtifactError(
            f"{arguments[0]}: the runtime crashed on the program ({error.cause}); export it again",
            code="runtime_crashed",
        ) from None


def load_program(path: Path, shape: Sequence[int] = ()) -> Model:
    """Load a program of one image (1, 3, side, side) in fp32, or one input of `shape`, with one thread.

    Raises InvalidArtifactError.
    """
    from orchestrator.agent.executorch import ExecutorchRuntime, find_loader

    try:
        with _silent_libraries():
            model = ExecutorchRuntime(find_loader()).load(path, {"threads": 1})
    except AgentError as error:
        raise InvalidArtifactError(f"{path}: {error}", code="damaged_model") from None
    except OSError as error:
        raise InvalidArtifactError(
            f"{path}: cannot read the model ({error.strerror}); check the path", code="unreadable_file"
        ) from None
    kinds = {spec.dtype for spec in (*model.inputs, *model.outputs)}
    match [tuple(spec.shape) for spec in model.inputs]:
        case [(1, _, height, _) as given] if kinds == {"float32"} and given == (
            tuple(shape) or (1, 3, height, height)
        ):
            return model
    wanted = f"the map of its prefix, {tuple(shape)}" if shape else "one image, (1, 3, side, side)"
    raise _unexpected(path, model, f"does not take {wanted}")


def _unexpected(path: Path, model: Model, problem: str) -> InvalidArtifactError:
    shapes = [
        ", ".join(f"{spec.dtype}{tuple(spec.shape)}" for spec in specs)
        for specs in (model.inputs, model.outputs)
    ]
    return InvalidArtifactError(
        f"{path} {problem} in float32: it has {shapes[0]} in and {shapes[1]} out; export it again",
        code="not_a_classifier" if "classifier" in problem else "wrong_model_shape",
    )


@contextmanager
def _silent_libraries() -> Iterator[None]:
    """Discard what libraries write to stderr.

    Where another part of the process has set up ExecuTorch's log before, the runtime reports it on every load.
    Failures are raised in any case.
    """
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)

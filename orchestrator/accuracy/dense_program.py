"""Raw outputs of an exported detector or segmentation network, run by ExecuTorch over images."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.accuracy.processes import in_processes
from orchestrator.accuracy.program import load_program
from search.dense.data.batches import plain_batches
from search.dense.data.scene import Scenes, Task
from search.dense.data.sources import open_scenes

PART = 16
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
    parts = [indices[start : start + PART] for start in range(0, len(indices), PART)]
    arguments = (path, scenes.name, scenes.digest, task, shape)
    for part, outputs in zip(parts, in_processes(_serve, arguments, parts, workers), strict=True):
        yield part, torch.from_numpy(outputs)


def _serve(
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

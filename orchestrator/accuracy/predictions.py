"""Predictions image by image, kept on disk as they come in."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from luts.estimate.statistics import Proportion
from luts.format.errors import BlocktimeError, InvalidArtifactError
from luts.format.files import storage_error, write_atomically
from luts.format.processes import start_worker, worker_context
from orchestrator.accuracy.images import ImageSet

KEPT = 5
"""Guesses that are kept of an image: top-5 needs them."""


@dataclass(frozen=True, eq=False)
class Guesses:
    """The likeliest outputs of a classifier, by its logits.

    Attributes:
        first: (N, k) int32, of each image the indices of the k largest logits, the largest first; k is `KEPT`, or
            `outputs` where that is less.
        outputs: How many the classifier has.
    """

    first: np.ndarray
    outputs: int

    def right(self, expected: np.ndarray, among: int = 1) -> np.ndarray:
        """(N,) bool: whether the output that is `expected` (N,) of an image is one of the first `among`."""
        right: np.ndarray = (self.first[:, :among] == expected[:, None]).any(1)
        return right

    def accuracy(self, expected: np.ndarray, among: int = 1) -> Proportion:
        """The share of images that it gets right."""
        return Proportion(int(self.right(expected, among).sum()), len(self.first))

    def agreement(self, other: Guesses) -> Proportion:
        """The share of images of which another classifier's first guess is the same."""
        return Proportion(int((self.first[:, 0] == other.first[:, 0]).sum()), len(self.first))


Keep = Callable[[Guesses], object]
"""Called with all guesses so far, those of the first images in order, whenever there are more."""


def guesses_of(logits: np.ndarray) -> np.ndarray:
    """`Guesses.first` of logits (N, outputs); of equal ones the lower index is first.

    Raises:
        InvalidArtifactError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise InvalidArtifactError("its logits are not finite; export it again, or with another precision")
    return np.argsort(-logits, axis=1, kind="stable")[:, :KEPT].astype(np.int32)


MAX_BYTES = 1 << 30
"""Far more than the guesses on all of ImageNet."""


class KeptGuesses:
    """Those of one classifier on one set of images, in a folder, which may be None: then nothing is kept."""

    def __init__(self, folder: Path | None, classifier: str, images: ImageSet):
        """`classifier`: what decides its guesses besides the images, such as its file's digest."""
        said = [
            classifier,
            images.digest,
            hashlib.sha256(np.ascontiguousarray(images.indices).data).hexdigest(),
            images.side,
            asdict(images.normalization),
        ]
        identity = hashlib.sha256(json.dumps(said).encode()).hexdigest()
        self.path = folder / "guesses" / f"{identity[:24]}.safetensors" if folder else None
        self._most = len(images.indices)

    def read(self) -> Guesses | None:
        """What is known; None where nothing is. Raises InvalidArtifactError where the file is damaged."""
        if self.path is None or not self.path.exists():
            return None
        from safetensors import SafetensorError, safe_open

        try:
            if self.path.stat().st_size > MAX_BYTES:
                raise ValueError(f"over {MAX_BYTES >> 20} MiB")
            with safe_open(self.path, "np") as file:
                first, outputs = file.get_tensor("first"), int((file.metadata() or {})["outputs"])
            if first.dtype != np.int32 or first.ndim != 2 or first.shape[1] != min(KEPT, outputs):
                raise ValueError(f"{first.dtype}{first.shape} of {outputs} outputs")
            if not 1 <= len(first) <= self._most or not 0 <= first.min() <= first.max() < outputs:
                raise ValueError("guesses of other images")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InvalidArtifactError(f"{self.path}: no intact guesses ({error}); remove it") from error
        return Guesses(first, outputs)

    def write(self, guesses: Guesses) -> None:
        """Keep what is known so far. Raises StorageError where that can't be written."""
        if self.path is None:
            return
        from safetensors.numpy import save

        data = save({"first": np.ascontiguousarray(guesses.first)}, {"outputs": str(guesses.outputs)})
        try:
            write_atomically(self.path, data)
        except OSError as error:
            raise storage_error(f"cannot write {self.path}", error, "choose another --output") from error


def in_processes(
    serve: Callable[..., None], arguments: tuple[Any, ...], tasks: Sequence[Any], workers: int
) -> Iterator[Any]:
    """What `serve` answers to each of the tasks, in their order.

    Args:
        serve: Called in a fresh process with a connection and `arguments`; answers every task that it receives.
            An answer that is a BlocktimeError is raised here.
        tasks: Sent one at a time.
        workers: Processes at most.

    Raises:
        InvalidArtifactError: a process died.
    """
    context = worker_context(serve.__module__)
    processes: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int] = {}
    answers: dict[int, Any] = {}
    waiting = list(reversed(range(len(tasks))))
    try:
        for _ in range(min(workers, len(tasks))):
            ours, theirs = context.Pipe()
            processes[ours] = context.Process(target=serve, args=(theirs, *arguments), daemon=True)
            start_worker(processes[ours])
            theirs.close()
            busy[ours] = waiting.pop()
            _send(ours, tasks[busy[ours]])
        given = 0
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                answers[busy.pop(ready)] = _answer(ready, processes[ready])
                if waiting:
                    busy[ready] = waiting.pop()
                    _send(ready, tasks[busy[ready]])
            while given in answers:
                yield answers.pop(given)
                given += 1
    finally:
        for connection, process in processes.items():
            connection.close()
            process.kill()
            process.join()


def _send(connection: Connection, task: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # a dead process is noticed where its answer is awaited
        connection.send(task)


def _answer(connection: Connection, process: BaseProcess) -> Any:
    try:
        answer = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        raise InvalidArtifactError(
            f"the runtime crashed on the program (exit code {process.exitcode}); export it again"
        ) from None
    if isinstance(answer, BlocktimeError):
        raise answer
    return answer

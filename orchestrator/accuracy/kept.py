"""Guesses on disk: kept as they come in, so that an evaluation that was cut off goes on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from luts.format.atomic_file import storage_error, write_atomically
from luts.format.errors import InvalidArtifactError
from orchestrator.accuracy.guesses import KEPT, Guesses
from orchestrator.accuracy.images import ImageSet

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

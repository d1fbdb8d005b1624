"""A file of teacher logits: those of one epoch, each batch with the seed of its augmentation beside it.

Its metadata hold a JSON header that says whose logits of what these are. Of every image the largest k logits are
kept, and the one that the others would need for the same total probability: with k = 1 that is the teacher's
decision and how sure it is.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from luts.format.atomic_file import write_atomically
from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from search.supernet.model.tensors import tensors_digest

TOP_K = 10
"""Logits kept of an image; of ImageNet's 1000 classes they hold nearly all probability of a good teacher."""

MAX_FILE_BYTES = 1 << 30
"""An epoch of ImageNet with ten logits is 85 MB."""

MAX_HEADER_BYTES = 64 * 1024

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class LabelHeader(BaseModel):
    """Whose logits of which images; all of it must be the same for one to hold.

    Attributes:
        teacher: Digest of the teacher's weights and preprocessing.
        data: Digest of the images.
        images: Digest of everything that decides which image comes when, and its augmentation.
        classes: Logits of the teacher.
        top_k: Logits kept of an image.
        steps: Batches of an epoch.
        batch: Images of the largest batch; with a multi-scale recipe others are smaller.
        part: Which part of each batch this is, of how many: each process of a distributed run has its own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    teacher: _Sha256
    data: _Sha256
    images: _Sha256
    classes: int = Field(ge=1, le=65_536)
    top_k: int = Field(ge=1, le=65_536)
    steps: int = Field(ge=1, le=20_000_000)
    batch: int = Field(ge=1, le=65_536)
    part: tuple[int, int] = (0, 1)


class LabelFile:
    """The teacher logits of one epoch: which batches have theirs, and what they are.

    A file that holds more logits of an image than are asked for serves too, and goes on as it is.
    """

    def __init__(self, header: LabelHeader, path: Path):
        self.path, self.changed = path, False
        if path.exists():
            self.header, self.tensors = _read(path, header)
        else:
            self.header = header
            self.tensors = {name: torch.zeros(s, dtype=dtype) for name, (s, dtype) in _layout(header).items()}

    def seed(self, step: int) -> int | None:
        """Of the augmentation of a batch that is kept; None for one that is missing."""
        return int(self.tensors["seed"][step]) if self.tensors["done"][step] else None

    def keep(self, step: int, seed: int, logits: Tensor) -> None:
        """Take the teacher's logits (B, classes) of a batch; the places after B stay empty."""
        top_k, classes, kept, size = self.header.top_k, self.header.classes, self.tensors, len(logits)
        logits = logits.float().cpu()
        value, index = logits.topk(top_k, 1)
        kept["value"][step, :size], kept["index"][step, :size] = value.half(), index.int()
        if top_k < classes:
            others = logits.scatter(1, index, -torch.inf).logsumexp(1)
            kept["rest"][step, :size] = (others - math.log(classes - top_k)).half()
        kept["seed"][step], kept["done"][step] = seed, True
        self.changed = True

    def logits(self, step: int, size: int) -> Tensor:
        """Of a batch of `size` images that is kept, (B, classes)."""
        rest, index, value = (self.tensors[name][step, :size] for name in ("rest", "index", "value"))
        every = rest.float()[:, None].expand(-1, self.header.classes)
        return every.scatter(1, index.long(), value.float())

    def write(self) -> None:
        """Replace the file; raises BlocktimeError where the disk is full or may not be written."""
        metadata = {"header": self.header.model_dump_json(), "sha256": tensors_digest(self.tensors)}
        try:
            write_atomically(self.path, save(self.tensors, metadata))
        except OSError as error:
            raise BlocktimeError(
                f"{self.path}: cannot store the teacher's labels ({error.strerror}); free some space and repeat"
            ) from error
        self.changed = False


def _layout(header: LabelHeader) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    each, kept = (header.steps, header.batch), (header.steps, header.batch, header.top_k)
    return {
        "done": ((header.steps,), torch.bool),
        "seed": ((header.steps,), torch.int64),
        "value": (kept, torch.float16),
        "index": (kept, torch.int32),
        "rest": (each, torch.float16),
    }


def _read(path: Path, header: LabelHeader) -> tuple[LabelHeader, dict[str, Tensor]]:
    remedy = "remove it, and it is made again"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise InvalidArtifactError(f"{path}: over {MAX_FILE_BYTES} bytes, no stored labels; {remedy}")
        metadata = _metadata(data)
        tensors: dict[str, Tensor] = load(data)
        stored = LabelHeader.model_validate_json(metadata["header"])
    except (OSError, SafetensorError, ValidationError, ValueError, KeyError, TypeError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise InvalidArtifactError(f"{path}: no intact teacher labels ({line}); {remedy}") from error
    names = LabelHeader.model_fields
    differing = [name for name in names if name != "top_k" and getattr(stored, name) != getattr(header, name)]
    if stored.top_k < header.top_k:
        differing.append("top_k")
    if differing:
        raise UsageError(
            f"{path}: teacher labels of another run (other {', '.join(differing)}); use another folder for them"
        )
    layout = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    if layout != _layout(stored) or metadata.get("sha256") != tensors_digest(tensors):
        raise InvalidArtifactError(f"{path}: teacher labels are damaged; {remedy}")
    indices = tensors["index"]
    if int(indices.min()) < 0 or int(indices.max()) >= header.classes:
        raise InvalidArtifactError(f"{path}: teacher labels name classes that there are not; {remedy}")
    return stored, tensors


def _metadata(data: bytes) -> dict[str, str]:
    """The header of a safetensors file: u64 length, then JSON, whose `__metadata__` are texts."""
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("its header is too long")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    return {str(key): str(value) for key, value in metadata.items()}

"""Named tensors: what they are recognised by, and how those of a file get into a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from luts.format.errors import InvalidArtifactError


def tensors_digest(tensors: Mapping[str, Tensor], heading: str = "") -> str:
    """sha256 of a text, then of all tensors in the order of their names, with their shapes and types."""
    hashed = hashlib.sha256(heading.encode())
    for name, value in sorted(tensors.items()):
        hashed.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        hashed.update(value.detach().cpu().contiguous().numpy().data)
    return hashed.hexdigest()


@torch.no_grad()
def copy_into(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], otherwise: str) -> None:
    """Overwrite tensors with those of the same names.

    Raises:
        InvalidArtifactError: names or shapes differ; says `otherwise`.
    """
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in targets.items()}:
        raise InvalidArtifactError(otherwise)
    for name, target in targets.items():
        target.copy_(tensors[name])

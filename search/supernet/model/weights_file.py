"""Safetensors files of a network's weights: read whole, and what keeps them from being a network's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
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
    """Overwrite tensors with those of the same names; if names or shapes differ, refuse with `otherwise`."""
    if {k: v.shape for k, v in tensors.items()} != {k: v.shape for k, v in targets.items()}:
        raise InvalidArtifactError(otherwise, code="weights_of_another_network")
    for name, target in targets.items():
        target.copy_(tensors[name])


MAX_WEIGHTS_BYTES = 16 << 30
"""Over a hundred times the largest registered space with its optimizer state."""


def read_weights(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """Read the tensors of a safetensors file by name; `sha256` is the digest that it must have, if any.

    Raises InvalidArtifactError if it is missing, too large, not such a file, or has another digest.
    """
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_WEIGHTS_BYTES >> 30} GiB; is this the right file?", code="file_too_large"
            )
        data = path.read_bytes()
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise InvalidArtifactError(
                f"{path}: truncated, edited or other weights (sha256 differs); restore or write it again",
                code="digest_mismatch",
            )
        tensors: dict[str, Tensor] = load(data)
    except (OSError, SafetensorError) as error:
        raise unreadable_weights(path, error) from error
    return tensors


def misfit(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return why given tensors can't be a network's own; empty if they can."""
    for names, what in ((own.keys() - given.keys(), "lack"), (given.keys() - own.keys(), "have also")):
        if names:
            return f"weights of another network: they {what} {sorted(names)[0]} ({len(names)} such in all)"
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, not {tuple(tensor.shape)}"
            return f"weights of another network: {name} is {shapes}"
        if not given[name].isfinite().all():
            return f"{name} is not finite, so training had diverged"
    return ""


def unreadable_weights(path: Path, error: OSError | SafetensorError) -> InvalidArtifactError:
    """Return the error for a weights file that can't be read."""
    if isinstance(error, OSError):
        why = error.strerror or error
        return InvalidArtifactError(
            f"{path}: cannot read the weights ({why}); check the path", code="unreadable_weights"
        )
    return InvalidArtifactError(
        f"{path}: not a safetensors file ({error}); pickled weights are not read: "
        "write the state dict with safetensors.torch.save_file",
        code="invalid_weights",
    )

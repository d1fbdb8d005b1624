"""A small model, exported, for tests that give agents something to run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Exported:
    """A .pte, and what PyTorch answers for an input."""

    path: Path
    sha256: str
    sample: np.ndarray
    expected: np.ndarray


def export_tiny(folder: Path) -> Exported:
    """A convolution lowered to XNNPACK: float32[1, 3, 32, 32] to float32[1, 8]."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()
    sample = torch.randn(1, 3, 32, 32)
    program = to_edge_transform_and_lower(
        torch.export.export(network, (sample,)), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    path = folder / "tiny.pte"
    path.write_bytes(program.buffer)
    sha256 = hashlib.sha256(program.buffer).hexdigest()
    return Exported(path, sha256, sample.numpy(), network(sample).detach().numpy())

"""Small models exported for the native libraries, and what ExecuTorch's Python runtime answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from executorch.exir.passes import MemoryPlanningPass
from executorch.extension.pybindings import portable_lib


@dataclass(frozen=True)
class Exported:
    """A .pte, inputs for it, and what ExecuTorch's Python runtime answers to them."""

    path: Path
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


class Lookup(torch.nn.Module):
    """Rows of a table by index plus an offset, and which of that is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(7, 5)

    def forward(self, indices: torch.Tensor, offset: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.table(indices) + offset
        return found, found > 0


def export_convolution(path: Path) -> Exported:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    return _export(network, (torch.randn(1, 3, 32, 32),), path, delegate=True)


def export_lookup(path: Path) -> Exported:
    torch.manual_seed(0)
    return _export(Lookup(), (torch.tensor([6, 0, 3, 1]), torch.randn(4, 5)), path, delegate=False)


def export_unplanned(path: Path, *, inputs: bool, outputs: bool) -> Exported:
    """`lookup` where the plan has no memory for the inputs, or none for the outputs."""
    torch.manual_seed(0)
    planning = MemoryPlanningPass(alloc_graph_input=not inputs, alloc_graph_output=not outputs)
    config = ExecutorchBackendConfig(memory_planning_pass=planning)
    samples = (torch.tensor([6, 0, 3, 1]), torch.randn(4, 5))
    return _export(Lookup(), samples, path, delegate=False, config=config)


def _export(
    network: torch.nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    *,
    delegate: bool,
    config: ExecutorchBackendConfig | None = None,
) -> Exported:
    program = torch.export.export(network.eval(), inputs)
    partitioner = [XnnpackPartitioner()] if delegate else []
    path.write_bytes(
        to_edge_transform_and_lower(program, partitioner=partitioner).to_executorch(config).buffer
    )
    method = portable_lib._load_for_executorch(str(path))
    outputs = [tensor.numpy().copy() for tensor in method.run_method("forward", inputs)]
    return Exported(path, [tensor.numpy() for tensor in inputs], outputs)

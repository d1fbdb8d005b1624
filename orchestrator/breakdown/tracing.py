"""Attribution by ExecuTorch's event tracer, on a device whose agent has it."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from orchestrator.breakdown.attribution import Attribution, Operator, Roof, by_tracer
from orchestrator.breakdown.labels import label_operations, match_labels
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.artifact import Artifact
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.build import export_module
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import HelloReply, TracedOperation

SIDE = 512
"""Side of the product's three matrices: each is a MiB, so operands stay in the second cache and loops are
long.
"""

ROWS, COLUMNS = 4096, 1024
"""Size of the copy: 16 MiB to another 16, which no second cache holds."""


class _Copied(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """(1, ROWS + 1, COLUMNS) -> (1, ROWS, COLUMNS): all but the first row, in one piece."""
        return x[:, 1:]


@dataclass(frozen=True)
class RooflineKernel:
    """A model file, and what it does in one execution."""

    file: ModelFile
    macs: int
    data_bytes: int


def export_kernels(folder: Path) -> tuple[RooflineKernel, RooflineKernel]:
    """Export the matrix product and the copy as XNNPACK programs to `folder`; raises BlocktimeError."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        product, square = nn.Linear(SIDE, SIDE, bias=False).eval(), torch.randn(SIDE, SIDE)
        rows = torch.randn(1, ROWS + 1, COLUMNS)
    matmul = _made(product, square, folder / "product.pte")
    copy = _made(_Copied().eval(), rows, folder / "copy.pte")
    return RooflineKernel(matmul, SIDE**3, 3 * 4 * SIDE**2), RooflineKernel(copy, 0, 2 * 4 * ROWS * COLUMNS)


def _made(module: nn.Module, x: Tensor, path: Path) -> ModelFile:
    export_module(module, (x,), path)
    return ModelFile(path, hashlib.sha256(path.read_bytes()).hexdigest())


ROUNDS, WARMUP = 40, 5
"""Executions of the network with the tracer and without, in random order; the faster half of each is used."""


def untraceable_reason(hello: HelloReply, variant: Variant) -> str:
    """Return why a variant can't be traced on a device, in one line; empty if it can."""
    runtime = hello.runtimes.get(variant.runtime)
    if variant.runtime != "executorch" or variant.target != "xnnpack":
        return "only ExecuTorch's XNNPACK programs can be traced; by removal alone"
    if runtime is None or "trace" not in runtime.options:
        return f"the agent {hello.agent.name} has no event tracer; by removal alone"
    return ""


def trace_network(device: Device, variant: Variant, artifact: Artifact) -> Attribution:
    """Trace a network, measured together with itself without the tracer and with two roofline kernels.

    Raises:
        DeviceError: The agent lost the connection, or returned no trace.
        AgentError: It can't load or run the network.
        BlocktimeError: The kernels can't be exported.
    """
    labels = label_operations(artifact)
    with tempfile.TemporaryDirectory() as folder:
        product, copy = export_kernels(Path(folder))
        samples, operations = _run(
            device, variant, ModelFile(artifact.path, artifact.sha256), (product, copy)
        )
    whole_ms, traced_ms, product_ms, copy_ms = samples
    roof = Roof(1e-6 * product.macs / product_ms, 1e-6 * copy.data_bytes / copy_ms)
    found, by_name = match_labels(operations, labels)
    notes = [
        f"traced network: {traced_ms:.3f} ms; XNNPACK tells whole microseconds of its operators, cut off: up to "
        f"{1e-3 * sum(operation.call is not None for operation in operations):.3f} ms of "
        f"{len(operations)} operations are unexplained by that",
    ]
    if by_name:
        notes.append(
            f"{by_name} of {len(operations)} operations go by their names alone, not by their modules"
        )
    operators = [
        Operator(
            operation.name,
            label.kind,
            label.part,
            operation.ns / 1e6,
            label.cost.macs if label.cost else None,
            label.cost.data_bytes if label.cost else None,
        )
        for operation, label in zip(operations, found, strict=True)
    ]
    return by_tracer(whole_ms, operators, roof, notes)


def _run(
    device: Device, variant: Variant, network: ModelFile, kernels: Sequence[RooflineKernel]
) -> tuple[list[float], Sequence[TracedOperation]]:
    """Return milliseconds of the network, traced network and kernels, called in random order; and the trace."""
    link = DeviceConnection(device, variant.runtime, variant.load_options)
    files = [network, network, *(kernel.file for kernel in kernels)]
    options = [link.options, {**link.options, "trace": True}, *(link.options for _ in kernels)]
    try:
        handles = []
        for file, chosen in zip(files, options, strict=True):
            link.client.ensure(file.path, file.sha256)
            handles.append(link.client.load(file.sha256, link.runtime, chosen).handle)
        rng = random.Random(network.sha256)
        order = [rng.sample(range(len(handles)), len(handles)) for _ in range(ROUNDS)]
        result = link.client.run(handles, order, WARMUP)
    finally:
        link.drop()
    operations = result.operations[1] if len(result.operations) == len(handles) else ()
    if not operations:
        raise DeviceError(
            f"the agent on {device.name} gave no trace; see its log, or use --method removal", code="no_trace"
        )
    visited = np.asarray(order)
    return [faster_half_ms(result.samples[visited == index]) for index in range(len(handles))], operations


def faster_half_ms(ns: np.ndarray) -> float:
    """Return the mean of the faster half of samples in ms, like the tracer's times."""
    return float(np.sort(ns)[: (len(ns) + 1) // 2].mean()) / 1e6

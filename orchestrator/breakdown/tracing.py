"""Attribution by ExecuTorch's event tracer, on a device whose agent has it.

A program has lost the modules that it was made of. So the network is lowered again, to the same bytes, and
what the backend serialises is recorded with its modules. The runtime's own list differs slightly: XNNPACK
merges transposes into products, and a concatenation into its producers. Both are therefore aligned like two
texts, by operation; a stretch without a counterpart is labelled by its operations' names alone.
"""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError
from luts.format.operators import ELEMENT_BYTES
from orchestrator.breakdown.attribution import Attribution, Operator, Roof, by_tracer
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.artifact import Artifact
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.build import export_module
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.kinds import Chain, Family, Kind, Part, family_of, part_of, place_of
from orchestrator.export.lower.operators import count, element_type, graph_nodes, node_operators
from orchestrator.export.lower.rewrite import rewritten
from orchestrator.export.lower.source import build_module, one_thread, stamp_program
from orchestrator.export.lower.xnnpack import RecordedGraph, recorded_graphs
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.traces import event_word, operation_word, partners
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import HelloReply, TracedOperation


def operator_costs(graph: Any) -> Iterator[tuple[int, int]]:
    """Yield MACs and bytes of each node of an `XNNGraph`, in order.

    Bytes of activations and weights count once, however often they are read.
    """
    for node, read, output in graph_nodes(graph):
        once = [x for index, x in enumerate(read) if x not in read[:index]]
        data = [output, output] if type(node).__name__ == "XNNStaticSlice" else [output, *once]
        macs = sum(each.features.macs for each in node_operators(node, read, output))
        yield macs, sum(map(_bytes, data))


def _bytes(tensor: Any) -> int:
    return int(count(tensor) * ELEMENT_BYTES[element_type(tensor)])


@dataclass(frozen=True)
class OperationLabel:
    """An operation of a program: a word that its event has too, its kind and part, MACs and bytes if known."""

    word: str
    kind: Kind
    part: Part
    macs: int | None = None
    data_bytes: int | None = None


def label_operations(artifact: Artifact) -> list[OperationLabel]:
    """Return labels of an XNNPACK program's operations; InvalidArtifactError if it lowers differently now."""
    # as models are exported: the mean that settles random weights has other bits on several threads
    with one_thread():
        module, inputs = build_module(artifact.spec)
    spec, plain = artifact.spec, artifact.report.made == "plain"
    with recorded_graphs() as graphs:
        lowered = lower_to_executorch(module, inputs, spec.backend, spec.precision, plain=plain)
    if stamp_program(lowered.data, spec.weights_label) != artifact.path.read_bytes():
        raise InvalidArtifactError(
            f"{spec.name} lowers to another program than the cached one; clear the model cache and try again",
            code="stale_cache",
        )
    module = module if plain else rewritten(module, spec.backend)
    classes = {path: type(part).__name__ for path, part in module.named_modules()}
    labels: list[OperationLabel] = []
    for name, where in lowered.calls:
        if name == "executorch_call_delegate":
            number = int(where.rpartition("_")[2])
            labels += _delegate_labels(graphs[number], classes) if graphs[number].paths else []
        else:
            chain = _chain(where, classes)
            labels.append(
                OperationLabel(operation_word(name), place_of(name, chain).kind, part_of(name, chain))
            )
    return labels


def match_labels(
    operations: Sequence[TracedOperation], labels: Sequence[OperationLabel]
) -> tuple[list[OperationLabel], int]:
    """Return the label of each operation, and how many are labelled by their name alone."""
    words = [event_word(operation.name) for operation in operations]
    own = partners(words, [label.word for label in labels])
    found = [_label_by_name(word) if at is None else labels[at] for at, word in zip(own, words, strict=True)]
    return found, own.count(None)


def _label_by_name(word: str) -> OperationLabel:
    if word == "weights":
        return OperationLabel(word, "convolution", "projection")
    outside = [("", "")]
    return OperationLabel(word, place_of(word, outside).kind, part_of(word, outside))


def _delegate_labels(recorded: RecordedGraph, classes: Mapping[str, str]) -> list[OperationLabel]:
    nodes = [node.xnode_union for node in recorded.graph.xnodes]
    sigmoids = {n.output_id: n.input_id for n in nodes if type(n).__name__ == "XNNSigmoid"}
    labels = []
    for node, path, cost in zip(nodes, recorded.paths, operator_costs(recorded.graph), strict=True):
        name = type(node).__name__
        family: Family = "activation" if _is_silu(node, sigmoids) else family_of(name)
        if path is None:
            labels.append(OperationLabel(operation_word(name), "reshape", "reshape", *cost))
            continue
        chain = _chain(path, classes)
        kind, part = place_of(name, chain, family).kind, part_of(name, chain, family)
        labels.append(OperationLabel(operation_word(name), kind, part, *cost))
    return labels


def _is_silu(node: Any, sigmoids: Mapping[int, int]) -> bool:
    """Return whether it is the product in x * sigmoid(x)."""
    if type(node).__name__ != "XNNMultiply":
        return False
    one, two = node.input1_id, node.input2_id
    return bool(sigmoids.get(one) == two or sigmoids.get(two) == one)


def _chain(path: str, classes: Mapping[str, str]) -> Chain:
    names = path.partition("@")[0].split(".") if path else []
    paths = [""] + [".".join(names[: end + 1]) for end in range(len(names))]
    return [(place, classes.get(place, "")) for place in paths]


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
        Operator(operation.name, label.kind, label.part, operation.ns / 1e6, label.macs, label.data_bytes)
        for operation, label in zip(operations, found, strict=True)
    ]
    return by_tracer(whole_ms, operators, roof, notes)


def _run(
    device: Device, variant: Variant, network: ModelFile, kernels: Sequence[RooflineKernel]
) -> tuple[list[float], Sequence[TracedOperation]]:
    """Return milliseconds of the network, traced network and kernels, called in random order; and the trace."""
    with DeviceConnection.opened(device, variant) as link:
        files = [network, network, *(kernel.file for kernel in kernels)]
        options = [link.options, {**link.options, "trace": True}, *(link.options for _ in kernels)]
        handles = []
        for file, chosen in zip(files, options, strict=True):
            link.client.ensure(file.path, file.sha256)
            handles.append(link.client.load(file.sha256, link.runtime, chosen).handle)
        rng = random.Random(network.sha256)
        order = [rng.sample(range(len(handles)), len(handles)) for _ in range(ROUNDS)]
        result = link.client.run(handles, order, WARMUP)
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

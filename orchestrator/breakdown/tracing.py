"""Attribution by ExecuTorch's event tracer, on a device whose agent has it."""

from __future__ import annotations

import random

import numpy as np

from orchestrator.breakdown.attribution import Attribution, by_tracer
from orchestrator.breakdown.labels import kinds_of, labels_of
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.artifact import Artifact
from orchestrator.export.artifacts.variant import Variant
from orchestrator.measure.link import Link
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.model_file import ModelFile
from orchestrator.wire.replies import HelloReply

ROUNDS, WARMUP = 40, 5
"""Executions of the network with the tracer and of the one without, in random order; half of each is used."""


def why_untraced(hello: HelloReply, variant: Variant) -> str:
    """Why a variant can't be traced on a device, in one line; empty if it can."""
    runtime = hello.runtimes.get(variant.runtime)
    if variant.runtime != "executorch" or variant.target != "xnnpack":
        return "only ExecuTorch's XNNPACK programs can be traced; by removal alone"
    if runtime is None or "trace" not in runtime.options:
        return f"the agent {hello.agent.name} has no event tracer; by removal alone"
    return ""


def trace(device: Device, variant: Variant, artifact: Artifact) -> Attribution:
    """Trace a network beside itself without the tracer.

    Raises:
        DeviceError: the agent lost the connection, or gave no trace.
        AgentError: it can't load or run the network.
    """
    labels = labels_of(artifact)
    file = ModelFile(artifact.path, artifact.sha256)
    plain = Link(device, variant.runtime, variant.load_options)
    try:
        traced_options = {**variant.load_options, "trace": True}
        plain.client.ensure(file.path, file.sha256)
        handles = [
            plain.client.load(file.sha256, plain.runtime, options).handle
            for options in (plain.options, traced_options)
        ]
        rng = random.Random(artifact.sha256)
        order = [rng.sample([0, 1], 2) for _ in range(ROUNDS)]
        result = plain.client.run(handles, order, WARMUP)
    finally:
        plain.drop()
    operations = result.operations[1] if len(result.operations) == 2 else ()
    if not operations:
        raise DeviceError(f"the agent on {device.name} gave no trace; see its log, or use --method removal")
    kinds, by_name = kinds_of(operations, labels)
    visited = np.asarray(order)
    whole_ms, traced_ms = (faster_half_ms(result.samples[visited == index]) for index in (0, 1))
    notes = [
        f"traced network: {traced_ms:.3f} ms; XNNPACK tells whole microseconds of its operators, cut off: up to "
        f"{1e-3 * sum(operation.call is not None for operation in operations):.3f} ms of "
        f"{len(operations)} operations are unexplained by that",
    ]
    if by_name:
        notes.append(
            f"{by_name} of {len(operations)} operations go by their names alone, not by their modules"
        )
    times = [(kind, operation.ns / 1e6) for kind, operation in zip(kinds, operations, strict=True)]
    return by_tracer(whole_ms, times, notes)


def faster_half_ms(ns: np.ndarray) -> float:
    """Mean of the faster half of samples, ms: the estimator of the tracer's times."""
    return float(np.sort(ns)[: (len(ns) + 1) // 2].mean()) / 1e6

"""`bench doctor --smoke`: a tiny network goes through the whole chain, from its export to a device's outputs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.table import Column, Table
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.artifact import allowed_error
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.session import check_runtime
from orchestrator.tasks.models import export_all
from orchestrator.tasks.progress import Progress, Step
from orchestrator.tasks.target import Target
from orchestrator.wire.messages import LoadReply
from search.spaces import get_space


def smoke_test(target: Target, progress: Progress) -> Table:
    """Export, send, load, check and time a tiny network; return the steps and when each was done. No LUT is made.

    Raises:
        UsageError: a simulated device, or a variant that the device lacks.
        InvalidArtifactError: the device's outputs are not PyTorch's.
        DeviceError: the device is not there, refuses the network, or is not fit to be measured now.
    """
    if target.variant.is_simulated:
        raise UsageError("a simulated device has no outputs; use host or a phone", code="simulated_device")
    rows, started = list[dict[str, Any]](), time.monotonic()

    def done(step: str, result: str) -> None:
        rows.append({"step": step, "result": result, "seconds": time.monotonic() - started})
        progress(Step(step, len(rows), 7, result))

    with target.found() as device:
        done("found", device.name)
        blocks = next(iter(get_space("autovit-nano"))).blocks()  # convolutions, attention and a classifier
        spec = target.variant.export_spec(tuple(block.key for block in blocks))
        artifact = export_all({"tiny": spec}, 1)["tiny"]
        done("exported", f"{artifact.payload_bytes / 1e3:.0f} KB")
        variant = target.variant_on(device)
        with DeviceConnection.opened(device, variant) as link:
            hello = link.hello()
            check_runtime(device.name, hello, variant)
            done("connected", f"{hello.device.model}, {hello.device.os}, {hello.agent.name}")
            done("sent", "now" if link.client.ensure(artifact.path, artifact.sha256) else "earlier")
            model = link.client.load(artifact.sha256, variant.runtime, variant.load_options)
            done("loaded", f"{model.load_ns / 1e6:.1f} ms")
            done("checked", f"within {_check_outputs(link, model, spec):.1e} of PyTorch")
            samples = link.client.run([model.handle], [[0]] * 50, warmup=10).samples
            done("timed", f"{np.median(samples) / 1e6:.3f} ms")
    warning = ", SIMULATED: not measured on any device" if hello.device.simulated else ""
    columns = (Column("step", "step"), Column("result", "result"), Column("seconds", "s", 1))
    return Table(f"{device.name}, {variant.name}{warning}", columns, rows)


def _check_outputs(link: DeviceConnection, model: LoadReply, spec: ExportSpec) -> float:
    """Return the error relative to PyTorch's largest output; InvalidArtifactError if it is too large."""
    import torch

    from orchestrator.export.lower.parity import check_parity
    from orchestrator.export.lower.source import build_module

    module, inputs = build_module(spec)
    arrays = [each.numpy().astype(taken.dtype) for each, taken in zip(inputs, model.inputs, strict=True)]
    outputs = [torch.from_numpy(each) for each in link.client.check(model.handle, arrays)]
    try:
        return check_parity(outputs, module, inputs, allowed_error(spec.precision)).max_relative_error
    except InvalidArtifactError as error:
        reason = f"{link.device.name}: {str(error).removesuffix('; not kept')}; try another --backend"
        raise InvalidArtifactError(reason, code="wrong_outputs") from error

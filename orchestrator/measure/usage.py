"""What each model takes besides time: each alone in the agent for a moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from orchestrator.devices.common.device import Device, ignore_message
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import MemoryUse, usage_alone
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import UsageRecord
from orchestrator.measure.readiness import Link, run_when_ready
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError
from orchestrator.wire.messages import DeviceState

ALONE_S = 0.6
"""Of calls to each model, in `PARTS` runs with the device's state behind each..."""

PARTS = 3
MAX_CALLS = 1000


def note_usage(
    link: Link,
    files: Mapping[str, ModelFile],
    log: MeasurementLog,
    policy: Policy,
    models: Sequence[str],
    tell: Callable[[str], None],
) -> None:
    """Load and call each model alone and write what the device then tells to the log; once for each.

    Nothing where the device tells neither memory nor charge. What is wrong with a model shows in its batch.
    """
    noted = [record for record in log.records if isinstance(record, UsageRecord)]
    empty = DeviceState.model_validate(noted[0].empty) if noted else None
    for model in models:
        if model in {record.model for record in noted}:
            continue
        try:
            before = link.client.state()
            if not _tells(before):
                return
            empty = empty or before
            tell(f"{model} alone: what it takes besides time")
            log.append(_alone(link, files[model], model, policy, empty, before, tell))
        except AgentError:
            continue
        except AgentLost:
            link.drop()


def memory_of(device: Device, variant: Variant, file: ModelFile) -> MemoryUse | None:
    """Memory of a model alone in an agent of its own; None where the device does not tell, or can't run it.

    An agent keeps what it has freed, and its peak never falls: in one that has run other models, as before the
    batches of a measurement, memory has a range of what may be theirs, and a peak only where it is the highest yet.
    """
    link = Link(device, variant.runtime, variant.load_options)
    try:
        empty = link.client.state()
        if empty.agent_memory_bytes is None:
            return None
        return usage_alone(_alone(link, file, "alone", Policy(), empty, empty, ignore_message)).memory
    except (AgentError, DeviceError):
        return None
    finally:
        link.drop()


def _tells(state: DeviceState) -> bool:
    charge = state.battery.charge_uah if state.battery else None
    return state.agent_memory_bytes is not None or charge is not None


def _alone(
    link: Link,
    file: ModelFile,
    model: str,
    policy: Policy,
    empty: DeviceState,
    before: DeviceState,
    tell: Callable[[str], None],
) -> UsageRecord:
    handle, calls, after = link.load(file).handle, 0, list[DeviceState]()
    each, warmup = 1, policy.warmup
    for _ in range(1 + PARTS):
        result = run_when_ready(link, [handle], [[0] * each], warmup, 0, tell)
        calls, warmup = calls + warmup + each, 0
        after.append(result.state_after)
        each = int(min(MAX_CALLS, max(1, 1e9 * ALONE_S / PARTS / float(np.median(result.samples)))))
    link.client.unload(handle)
    return UsageRecord(
        model=model,
        empty=empty.model_dump(),
        before=before.model_dump(),
        after=[state.model_dump() for state in after],
        calls=calls,
    )

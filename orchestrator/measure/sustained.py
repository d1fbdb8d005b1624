"""One model by itself: sustained runs, and the memory and energy that a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from orchestrator.devices.common.device import Device, ignore_message
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import MemoryUse, usage_of_record
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, RoundsRecord, UsageRecord
from orchestrator.measure.engine import ProgressCallback
from orchestrator.measure.readiness import (
    CallSchedule,
    DeviceConnection,
    ReferenceFailedError,
    refusal_reason,
    run_when_ready,
)
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError
from orchestrator.wire.messages import DeviceState

RUNS = 120
"""Runs of calls in a whole sustained run: enough points for a curve."""

SHORTEST_S, LONGEST_S = 1.0, 10.0
"""Bounds of a run's duration: long compared with a round trip, too short for the device to heat up within one."""

FIRST_CALLS = 10
"""Calls of the first run, whose duration decides the calls of the next one."""

MAX_CALLS = 20_000
"""Most calls of a run; a model of 50 us makes as many in a second."""


def run_sustained(
    connection: DeviceConnection,
    file: ModelFile,
    log: MeasurementLog,
    duration_s: float,
    progress: ProgressCallback,
) -> None:
    """Call the log's reference until it has run for `duration_s` in all, resuming where the log ends.

    After a loss or an interruption it is loaded again, as another segment: the device has cooled in between.
    `progress` is called with seconds done and in all.

    Raises:
        AgentLostError: The device was lost repeatedly; measurements so far are in the log.
        MeasurementRejectedError: The device stays unfit to be measured.
        ReferenceFailedError: It can't run the model.
    """
    losses = 0
    while called_s(log) < duration_s:
        before_s = called_s(log)
        try:
            _run_segment(connection, file, log, duration_s, progress)
        except AgentError as error:
            raise ReferenceFailedError(connection.device.name, refusal_reason(error)) from error
        except AgentLostError:
            connection.drop()
            losses = 1 if called_s(log) > before_s else losses + 1
            if losses > log.header.identity.policy["max_reconnects"]:
                raise
            progress("the device was lost: connecting again", 0, 0)


def called_s(log: MeasurementLog) -> float:
    """Return the seconds of all calls in the log."""
    return sum(float(run.ns.sum()) for run in log.records if isinstance(run, RoundsRecord)) / 1e9


def _run_segment(
    connection: DeviceConnection,
    file: ModelFile,
    log: MeasurementLog,
    duration_s: float,
    progress: ProgressCallback,
) -> None:
    earlier = [record for record in log.records if isinstance(record, BatchRecord)]
    before = connection.client.state()
    loaded = connection.load(file)
    batch = BatchRecord(
        batch=0,
        segment=len(earlier),
        pass_index=0,
        group=0,
        attempt=0,
        slots=[log.header.reference_id],
        copies=[0],
        load_ns=[],
        state_before=before,
    ).with_loads([loaded])
    log.append(batch)
    run_s = min(max(duration_s / RUNS, SHORTEST_S), LONGEST_S)
    calls, warmup, done_s = FIRST_CALLS, int(log.header.identity.policy["warmup"]), called_s(log)
    while done_s < duration_s:
        progress("running without a pause, seconds", int(done_s), int(duration_s))
        schedule = CallSchedule([loaded.handle], [[0] * calls], warmup)
        result = run_when_ready(connection, schedule, lambda text: progress(text, 0, 0))
        first = sum(isinstance(record, RoundsRecord) for record in log.records)
        log.append(RoundsRecord.from_run(batch, first, 0, schedule.order, result))
        ns = result.samples.ravel()
        done_s += float(ns.sum()) / 1e9
        next_s = min(run_s, max(duration_s - done_s, 0.0))
        calls, warmup = max(1, min(MAX_CALLS, round(1e9 * next_s / float(np.median(ns))))), 0
    connection.client.unload(loaded.handle)


ALONE_S = 0.6
"""Seconds of calls to each model whose memory and energy are measured, in `PARTS` runs."""

PARTS = 3
MAX_USAGE_CALLS = 1000


def record_usage(
    connection: DeviceConnection,
    files: Mapping[str, ModelFile],
    log: MeasurementLog,
    policy: Policy,
    models: Sequence[str],
    notify: Callable[[str], None],
) -> None:
    """Load and call each of the models alone and write the device's states to the log, once for each model.

    Does nothing if the device reports neither memory nor charge. A model that fails here fails again in its batch.
    """
    known = [record for record in log.records if isinstance(record, UsageRecord)]
    empty = known[0].empty if known else None
    for model in models:
        if model in {record.model for record in known}:
            continue
        try:
            before = connection.client.state()
            if not _reports_usage(before):
                return
            empty = empty or before
            notify(f"{model} alone: memory and energy")
            log.append(_usage_alone(connection, files[model], model, policy, (empty, before), notify))
        except AgentError:
            continue
        except AgentLostError:
            connection.drop()


def measure_memory(device: Device, variant: Variant, file: ModelFile) -> MemoryUse | None:
    """Return the memory of a model alone in an agent of its own; None if unknown, or the model fails.

    An agent keeps memory that it has freed, and its peak never falls: in an agent that has run other models, memory
    is only known as a range, and the peak only if it is the highest yet.
    """
    try:
        with DeviceConnection.opened(device, variant) as connection:
            empty = connection.client.state()
            if empty.agent_memory_bytes is None:
                return None
            record = _usage_alone(connection, file, "alone", Policy(), (empty, empty), ignore_message)
            return usage_of_record(record).memory
    except (AgentError, DeviceError):
        return None


def _reports_usage(state: DeviceState) -> bool:
    charge = state.battery.charge_uah if state.battery else None
    return state.agent_memory_bytes is not None or charge is not None


def _usage_alone(
    connection: DeviceConnection,
    file: ModelFile,
    model: str,
    policy: Policy,
    states: tuple[DeviceState, DeviceState],
    notify: Callable[[str], None],
) -> UsageRecord:
    """Load and call a model; `states` are those of the empty agent and right before the load."""
    empty, before = states
    handle, calls, after = connection.load(file).handle, 0, list[DeviceState]()
    run_calls, warmup = 1, policy.warmup
    for _ in range(1 + PARTS):
        result = run_when_ready(connection, CallSchedule([handle], [[0] * run_calls], warmup), notify)
        calls, warmup = calls + warmup + run_calls, 0
        after.append(result.state_after)
        median_ns = float(np.median(result.samples))
        run_calls = int(min(MAX_USAGE_CALLS, max(1, 1e9 * ALONE_S / PARTS / median_ns)))
    connection.client.unload(handle)
    return UsageRecord(model=model, empty=empty, before=before, after=after, calls=calls)

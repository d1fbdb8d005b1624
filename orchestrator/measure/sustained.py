"""One model without a pause: chunks of calls with the device's state around each, in the journal first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from orchestrator.devices.common.device import Device, ignore_message
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import MemoryUse, usage_of_record
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import BatchRecord, RoundsRecord, UsageRecord, pack_nanoseconds
from orchestrator.measure.readiness import DeviceConnection, ReferenceFailedError, refusal, run_when_ready
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError
from orchestrator.wire.messages import DeviceState

CHUNKS = 120
"""Of a whole run: points enough for a curve..."""

SHORTEST_S, LONGEST_S = 1.0, 10.0
"""...of which each lasts long beside a round trip, and not so long that the device heats up within one."""

FIRST_CALLS = 10
"""Of the first chunk, which tells how many calls the next one takes."""

MAX_CALLS = 20_000
"""Of a chunk; a model of 50 us makes as many in a second."""


def run_sustained(
    link: DeviceConnection,
    file: ModelFile,
    log: MeasurementLog,
    duration_s: float,
    tell: Callable[[str, int, int], None],
) -> None:
    """Call the log's reference until it has run for `duration_s` in all, going on where the log ends.

    After a loss or an interruption it is loaded again, as a further segment: the device has cooled in between.

    Raises:
        AgentLostError: the device was lost again and again; what was measured is in the log.
        MeasurementRejectedError: the device stays in no state to be measured.
        ReferenceFailedError: it can't run the model.
    """
    losses = 0
    while worked_s(log) < duration_s:
        before_s = worked_s(log)
        try:
            _segment(link, file, log, duration_s, tell)
        except AgentError as error:
            raise ReferenceFailedError(link.device.name, refusal(error)) from error
        except AgentLostError:
            link.drop()
            losses = 1 if worked_s(log) > before_s else losses + 1
            if losses > log.header.identity.policy["max_reconnects"]:
                raise
            tell("the device was lost: connecting again", 0, 0)


def worked_s(log: MeasurementLog) -> float:
    """Seconds of calls in the log."""
    chunks = [record for record in log.records if isinstance(record, RoundsRecord)]
    return sum(float(chunk.nanoseconds().sum()) for chunk in chunks) / 1e9


def _segment(
    link: DeviceConnection,
    file: ModelFile,
    log: MeasurementLog,
    duration_s: float,
    tell: Callable[[str, int, int], None],
) -> None:
    """Load the model afresh and call it to the end of the time."""
    earlier = [record for record in log.records if isinstance(record, BatchRecord)]
    before = link.client.state()
    loaded = link.load(file)
    batch = BatchRecord(
        batch=0,
        segment=len(earlier),
        pass_index=0,
        group=0,
        attempt=0,
        slots=[log.header.reference_id],
        copies=[0],
        load_ns=[loaded.load_ns],
        compile_ns=[loaded.compile_ns],
        cached=[loaded.cached],
        input_buffers=[loaded.input_buffers],
        state_before=before.model_dump(),
    )
    log.append(batch)
    chunk_s = min(max(duration_s / CHUNKS, SHORTEST_S), LONGEST_S)
    calls, warmup, done_s = FIRST_CALLS, int(log.header.identity.policy["warmup"]), worked_s(log)
    while done_s < duration_s:
        tell("running without a pause, seconds", int(done_s), int(duration_s))
        ns = _chunk(link, log, batch.segment, loaded.handle, calls, warmup, lambda text: tell(text, 0, 0))
        done_s += float(ns.sum()) / 1e9
        wanted_s = min(chunk_s, max(duration_s - done_s, 0.0))
        calls, warmup = max(1, min(MAX_CALLS, round(1e9 * wanted_s / float(np.median(ns))))), 0
    link.client.unload(loaded.handle)


def _chunk(
    link: DeviceConnection,
    log: MeasurementLog,
    segment: int,
    handle: int,
    calls: int,
    warmup: int,
    tell: Callable[[str], None],
) -> np.ndarray:
    """Nanoseconds (calls,), once they are in the journal."""
    order = [[0] * calls]
    result = run_when_ready(link, [handle], order, warmup, 0, tell)
    chunk = RoundsRecord(
        batch=0,
        segment=segment,
        first_round=sum(isinstance(record, RoundsRecord) for record in log.records),
        settle_runs=0,
        order=order,
        ns=pack_nanoseconds(result.samples),
        state_before=result.state_before.model_dump(),
        state_after=result.state_after.model_dump(),
    )
    log.append(chunk)
    return result.samples.ravel()


ALONE_S = 0.6
"""Of calls to each model, in `PARTS` runs with the device's state behind each..."""

PARTS = 3
MAX_USAGE_CALLS = 1000


def record_usage(
    link: DeviceConnection,
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
        except AgentLostError:
            link.drop()


def measure_memory(device: Device, variant: Variant, file: ModelFile) -> MemoryUse | None:
    """Memory of a model alone in an agent of its own; None where the device does not tell, or can't run it.

    An agent keeps what it has freed, and its peak never falls: in one that has run other models, as before the
    batches of a measurement, memory has a range of what may be theirs, and a peak only where it is the highest yet.
    """
    link = DeviceConnection(device, variant.runtime, variant.load_options)
    try:
        empty = link.client.state()
        if empty.agent_memory_bytes is None:
            return None
        return usage_of_record(_alone(link, file, "alone", Policy(), empty, empty, ignore_message)).memory
    except (AgentError, DeviceError):
        return None
    finally:
        link.drop()


def _tells(state: DeviceState) -> bool:
    charge = state.battery.charge_uah if state.battery else None
    return state.agent_memory_bytes is not None or charge is not None


def _alone(
    link: DeviceConnection,
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
        each = int(min(MAX_USAGE_CALLS, max(1, 1e9 * ALONE_S / PARTS / float(np.median(result.samples)))))
    link.client.unload(handle)
    return UsageRecord(
        model=model,
        empty=empty.model_dump(),
        before=before.model_dump(),
        after=[state.model_dump() for state in after],
        calls=calls,
    )

"""What a model takes besides time while it is alone, in a sustained run or before the batches of another
measurement: memory and the battery's charge."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from orchestrator.journal.conditions import state_of
from orchestrator.journal.records import BatchRecord, ChunkRecord, Header, Record, UsageRecord
from orchestrator.wire.device_state import DeviceState

_MILLICOULOMBS_PER_UAH = 3.6
PEAK_NOISE_BYTES = 1 << 20
"""A peak that rose by less may be an earlier one: Linux keeps its counts per core, some hundred KiB apart."""

LEAST_STEPS = 5
"""Steps of the battery's counter that a figure takes: with fewer its interval is wider than two fifths of it."""


@dataclass(frozen=True)
class MemoryUse:
    """How much more memory the agent has, in bytes, than before it loaded the model.

    Attributes:
        resident: Between chunks of calls, median...
        resident_low, resident_high: ...and range; the agent's own buffers are in it.
        peak: The most at any moment, loading included; None where an earlier peak of the agent was higher.
    """

    resident: int
    resident_low: int
    resident_high: int
    peak: int | None


@dataclass(frozen=True)
class EnergyUse:
    """Energy a call in mJ, of the whole phone, screen included, by its battery's counter of charge.

    The interval is that of the counter's steps: each end of each part may be off by one.
    """

    mj_per_call: float
    low: float
    high: float


@dataclass(frozen=True)
class Usage:
    """None where the device does not tell; `energy_note` says why where it could."""

    memory: MemoryUse | None
    energy: EnergyUse | None
    energy_note: str = ""

    def columns(self) -> dict[str, float | None]:
        """`memory_mib`, `memory_low`, `memory_high`, `memory_peak`, `energy_mj`, …: one level, for tables."""
        memory, energy = self.memory, self.energy
        mib = (
            (memory.resident, memory.resident_low, memory.resident_high, memory.peak)
            if memory
            else (None,) * 4
        )
        mj = (energy.mj_per_call, energy.low, energy.high) if energy else (None,) * 3
        names = ("memory_mib", "memory_low", "memory_high", "memory_peak")
        told = {name: None if size is None else size / 2**20 for name, size in zip(names, mib, strict=True)}
        return told | dict(zip(("energy_mj", "energy_low", "energy_high"), mj, strict=True))

    def __str__(self) -> str:
        """In words; empty where nothing is told."""
        told = []
        if memory := self.memory:
            low, high = memory.resident_low / 2**20, memory.resident_high / 2**20
            peak = "" if memory.peak is None else f", {memory.peak / 2**20:.1f} MiB at most, loading included"
            told.append(f"memory {memory.resident / 2**20:.1f} MiB ({low:.1f} to {high:.1f}){peak}")
        if energy := self.energy:
            interval = f"{energy.low:.3g} to {energy.high:.3g}"
            told.append(f"energy {energy.mj_per_call:.3g} mJ a call ({interval}), of the whole phone")
        return "; ".join([*told, *([self.energy_note] if self.energy_note else [])])


def usage_of(records: Sequence[Record]) -> Usage:
    """What a sustained run's journal tells. Raises InvalidArtifactError where a state is not one."""
    batches = [record for record in records if isinstance(record, BatchRecord)]
    parts = [
        [
            (state_of(chunk.state_before), state_of(chunk.state_after), chunk.nanoseconds().size)
            for chunk in records
            if isinstance(chunk, ChunkRecord) and not chunk.rejected and chunk.segment == batch.segment
        ]
        for batch in batches
    ]
    before = state_of(batches[0].state_before) if batches and batches[0].state_before else None
    memory = memory_use(before, [after for _, after, _ in parts[0]]) if before else None
    states = [[state for chunk in part for state in chunk[:2]] for part in parts if part]
    header = records[0]
    warmup = int(header.identity.policy["warmup"]) if isinstance(header, Header) else 0
    calls = sum(warmup + sum(size for *_, size in part) for part in parts if part)
    return Usage(memory, *_energy(states, calls))


def usages_of(records: Sequence[Record]) -> dict[str, Usage]:
    """By model, what an ordinary measurement's journal tells; InvalidArtifactError where a state is not one."""
    return {record.model: usage_alone(record) for record in records if isinstance(record, UsageRecord)}


def usage_alone(record: UsageRecord) -> Usage:
    """What a model took while it was alone in an agent.

    An agent may have kept what models before this one had, and this one takes that again: its memory is no less
    than what was added to that, as its peak is, and no more than all that the agent has beyond the empty one.
    """
    empty, before = state_of(record.empty), state_of(record.before)
    after = [state_of(state) for state in record.after]
    added, whole = memory_use(before, after), memory_use(empty, after)
    memory = None
    if added and whole:
        low, high = sorted((added.resident_low, whole.resident_high))
        memory = MemoryUse((low + high) // 2, low, high, added.peak)
    energy, note = _energy([[before, *after]], record.calls)
    return Usage(memory, energy, note)


def memory_use(before: DeviceState, after: Sequence[DeviceState]) -> MemoryUse | None:
    """How much more an agent has in states `after` a load, of which there is one, than `before`.

    Of a first load alone: what an agent has freed it may keep, and the next load takes that again.
    """
    empty = before.agent_memory_bytes
    told = [state.agent_memory_bytes for state in after if state.agent_memory_bytes is not None]
    if empty is None or not told:
        return None
    peaks = [state.agent_peak_memory_bytes for state in after if state.agent_peak_memory_bytes is not None]
    earlier = before.agent_peak_memory_bytes
    rose = earlier is not None and peaks and max(peaks) > earlier + PEAK_NOISE_BYTES
    return MemoryUse(
        resident=round(statistics.median(told)) - empty,
        resident_low=min(told) - empty,
        resident_high=max(told) - empty,
        peak=max(peaks) - empty if rose else None,
    )


def _energy(parts: Sequence[Sequence[DeviceState]], calls: int) -> tuple[EnergyUse | None, str]:
    batteries = [[state.battery for state in part if state.battery] for part in parts]
    readings = [battery for part in batteries for battery in part]
    charges = [[b.charge_uah for b in part if b.charge_uah is not None] for part in batteries]
    volts = [b.voltage_mv / 1000 for b in readings if b.voltage_mv is not None]
    if not volts or sum(map(len, charges)) < sum(map(len, parts)):
        return None, ""
    if any(b.charging is not False for b in readings):
        return None, (
            "no energy a call: the phone was on external power, which the battery does not see; unplug it and "
            "reach it over the network"
        )
    used = sum(part[0] - part[-1] for part in charges)
    steps = [abs(b - a) for part in charges for a, b in pairwise(part) if a != b]
    if not steps or used < LEAST_STEPS * min(steps):
        return None, "no energy a call: the battery's counter of charge moved too little; measure for longer"
    mj = _MILLICOULOMBS_PER_UAH * statistics.mean(volts) / calls
    error = min(steps) * len(charges)
    return EnergyUse(mj * used, mj * (used - error), mj * (used + error)), ""

"""Conditions of a measurement from the device states in its journal: heat, caveats, load times, memory, energy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from luts.format.schema import LutInputs
from orchestrator.journal.records import (
    BatchRecord,
    EndRecord,
    Header,
    PlacedType,
    Record,
    RoundsRecord,
    UsageRecord,
)
from orchestrator.wire.messages import DeviceState

HOT_HEADROOM = 0.73
"""Limit of Android's thermal headroom, which is 1 at severe throttling and falls by 1 for 30 degrees less
(AOSP's ThermalManagerService). A Pixel 8 cuts its power budget 8 degrees before severe: from 1 - 8/30 on.
"""


def clock_cap_change(before: DeviceState, after: DeviceState) -> str:
    """Return which core's clock limit changed between two states, in words; empty if none did."""
    caps = {clock.cpu: clock.max_mhz for clock in before.cpus}
    for clock in after.cpus:
        cap = caps.get(clock.cpu)
        if cap and clock.max_mhz and cap != clock.max_mhz:
            return f"the clock of core {clock.cpu} was capped at {clock.max_mhz:.0f} MHz after {cap:.0f} MHz"
    return ""


def throttle_reason(before: DeviceState, after: DeviceState, cores: str = "") -> str:
    """Return why what ran between two states does not count; empty if nothing known invalidates it.

    Conditions that the agent was asked to ignore do not count; the LUT names them. `cores` are those that
    threads were pinned to, if any.
    """
    for state in (before, after):
        if state.thermal_state in ("serious", "critical") and "throttled" not in state.caveats:
            return f"thermal state {state.thermal_state}"
        if (state.thermal_headroom or 0.0) >= HOT_HEADROOM and "throttled" not in state.caveats:
            return f"thermal headroom {state.thermal_headroom:.2f}"
        if state.low_power_mode and "power_save" not in state.caveats:
            return "low-power mode was on"
    counts = before.throttle_count, after.throttle_count
    if None not in counts and counts[0] != counts[1]:
        return "the processor throttled"
    if (cap := clock_cap_change(before, after)) and "throttled" not in after.caveats:
        return cap
    elsewhere = {before.cores, after.cores} - {None, cores} if cores else set()
    if elsewhere:
        return f"threads could run on cores {min(map(str, elsewhere))} and not on {cores} alone"
    return ""


SwitchState = Literal["on", "off", "both"]


@dataclass(frozen=True)
class Conditions:
    """Everything seen in kept batches, as a LUT records it (`LutInputs`); empty or None if not reported."""

    caveats: tuple[str, ...]
    qos: tuple[str, ...]
    keep_warm: SwitchState | None
    sustained_performance: SwitchState | None
    cores: tuple[str, ...]
    input_buffers: tuple[str, ...]

    def merge(self, other: Conditions | LutInputs) -> Conditions:
        """Return the conditions of two parts of a measurement."""

        def both(name: str) -> tuple[str, ...]:
            return tuple(sorted({*getattr(self, name), *getattr(other, name)}))

        return Conditions(
            both("caveats"),
            both("qos"),
            _merge_switches(self.keep_warm, other.keep_warm),
            _merge_switches(self.sustained_performance, other.sustained_performance),
            both("cores"),
            both("input_buffers"),
        )


def _merge_switches(*states: SwitchState | None) -> SwitchState | None:
    known = {state for state in states if state}
    return "both" if len(known) > 1 else next(iter(known), None)


def read_conditions(records: Iterable[Record]) -> Conditions:
    """Return the conditions of a journal's kept batches; a batch without a verdict counts as kept.

    A `fair` thermal state is a caveat: it is measured in, but only if the device does not get cooler.
    """
    records = list(records)
    rejected = {record.batch for record in records if isinstance(record, EndRecord) and not record.kept}
    states = [
        state
        for record in records
        if isinstance(record, RoundsRecord) and not record.rejected and record.batch not in rejected
        for state in (record.state_before, record.state_after)
    ]
    batches = [r for r in records if isinstance(r, BatchRecord) and r.batch not in rejected]

    warm = {"fair": "fair_thermal_state"}

    def switch(values: Iterable[bool | None]) -> SwitchState | None:
        return _merge_switches(*("on" if value else "off" for value in values if value is not None))

    return Conditions(
        _distinct(
            caveat for state in states for caveat in [*state.caveats, warm.get(state.thermal_state or "")]
        ),
        _distinct(state.qos for state in states),
        switch(state.keep_warm for state in states),
        switch(state.sustained_performance for state in states),
        _distinct(state.cores for state in states),
        _distinct(buffers for batch in batches for buffers in batch.input_buffers),
    )


def _distinct(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))


def _usage_text(usage: Mapping[str, float]) -> str:
    parts = {"memory": "MiB", "energy": "mJ"}
    return ", ".join(
        f"{usage[f'{name}_{unit.lower()}']:.3g} {unit} ({usage[f'{name}_low']:.3g} to {usage[f'{name}_high']:.3g})"
        for name, unit in parts.items()
        if f"{name}_low" in usage
    )


def describe_conditions(inputs: LutInputs) -> dict[str, str]:
    """Return a LUT's conditions in words, without those that its device did not report."""
    both = {"both": "on in some batches, off in others"}
    texts = {
        "measured despite": ", ".join(inputs.caveats).replace("_", " "),
        "QoS class": ", ".join(inputs.qos),
        "cores that ran": "; ".join(inputs.cores),
        "input buffers": ", ".join(inputs.input_buffers),
        "reference alone": _usage_text(inputs.reference_usage),
        "keep-warm load": both.get(inputs.keep_warm or "", inputs.keep_warm or ""),
        "fixed performance": "on" if inputs.fixed_performance else "",
        "sustained performance": both.get(
            inputs.sustained_performance or "", inputs.sustained_performance or ""
        ),
    }
    return {name: text for name, text in texts.items() if text}


_FIRST_FACTOR = 4.0
"""A later load that takes this many times the fastest one counts as a first load..."""

_FIRST_NS = 500_000_000
"""...unless it is shorter than this: too short to prepare anything, other programs may delay any load."""


@dataclass(frozen=True)
class LoadTimes:
    """Median load times in ms.

    Attributes:
        load_ms: Loads of a model that the device had loaded before.
        first_ms, compile_ms: First loads and their compilation; None if the runtime does not report which
            loads are first, or the device had loaded the model before this measurement.
    """

    load_ms: float
    first_ms: float | None
    compile_ms: float | None


def load_times(records: Iterable[Record]) -> dict[str, LoadTimes]:
    """Return load times by model over all batches of a journal.

    The system may discard what Core ML prepared for a unit, which the agent can't see: a load that takes far
    longer than the fastest counts as a first one too.
    """
    later: dict[str, list[int]] = defaultdict(list)
    first: dict[str, list[int]] = defaultdict(list)
    compiled: dict[str, list[int]] = defaultdict(list)
    reports_cached: dict[str, bool] = defaultdict(bool)
    for batch in records:
        if not isinstance(batch, BatchRecord):
            continue
        unknown: list[None] = [None] * len(batch.slots)
        rows = zip(
            batch.slots, batch.load_ns, batch.cached or unknown, batch.compile_ns or unknown, strict=True
        )
        for model, load_ns, cached, compile_ns in rows:
            (first if cached is False else later)[model].append(load_ns)
            if compile_ns is not None:
                compiled[model].append(compile_ns)
            reports_cached[model] |= cached is not None
    for model in (model for model in later if reports_cached[model]):
        limit_ns = max(_FIRST_NS, _FIRST_FACTOR * min(later[model]))
        first[model] += [load_ns for load_ns in later[model] if load_ns > limit_ns]
        later[model] = [load_ns for load_ns in later[model] if load_ns <= limit_ns]
    return {
        model: LoadTimes(
            load_ms=_ms(later[model] or first[model]),
            first_ms=_ms_or_none(first[model]),
            compile_ms=_ms_or_none(compiled[model]),
        )
        for model in later.keys() | first.keys()
    }


def first_loads_s(records: Iterable[Record]) -> list[float]:
    """Return the seconds that each model's first load on this device took, compilation included."""
    times_by_model = load_times(records).values()
    return [
        (times.first_ms + (times.compile_ms or 0.0)) / 1e3
        for times in times_by_model
        if times.first_ms is not None
    ]


def _ms(ns: list[int]) -> float:
    return statistics.median(ns) / 1e6


def _ms_or_none(ns: list[int]) -> float | None:
    return _ms(ns) if ns else None


_MATCH = 1 << 20
"""Weight of a pair of one type; larger than any number of pairs on one unit, which count 1 each."""


def migrated_operations(base: Sequence[PlacedType], removal: Sequence[PlacedType]) -> int:
    """Return how many operations of `removal` run on another compute unit than their counterparts in `base`.

    Counterparts are those of an alignment with the most pairs of equal type in order and, among such
    alignments, the most pairs on the same unit. So no migration is counted that another alignment explains
    away: of two equal layers, either may be the removed one.
    """
    before, after = _differing(base, removal)
    units = np.array([unit for _, unit in after])
    types = np.array([kind for kind, _ in after])
    # Longest common subsequence, weighted; a row for each operation of the base.
    best = np.zeros(len(after) + 1, dtype=np.int64)
    for kind, unit in before:
        worth = np.where(types == kind, _MATCH + (units == unit), 0)
        best[1:] = np.maximum(best[1:], best[:-1] + worth)
        np.maximum.accumulate(best, out=best)
    pairs, stayed = divmod(int(best[-1]), _MATCH)
    return pairs - stayed


def _differing(
    base: Sequence[PlacedType], removal: Sequence[PlacedType]
) -> tuple[Sequence[PlacedType], Sequence[PlacedType]]:
    """Return both without their common ends, which are counterparts in some best alignment."""
    shorter = min(len(base), len(removal))
    start = next((i for i in range(shorter) if base[i] != removal[i]), shorter)
    left = shorter - start
    end = next((i for i in range(left) if base[-1 - i] != removal[-1 - i]), left)
    return base[start : len(base) - end], removal[start : len(removal) - end]


_MILLICOULOMBS_PER_UAH = 3.6
PEAK_NOISE_BYTES = 1 << 20
"""A peak that rose by less may be an earlier one: Linux counts per core, some hundred KiB apart."""

LEAST_STEPS = 5
"""Fewest steps of the battery's counter for an energy: with fewer its interval is wider than two fifths of
it.
"""


@dataclass(frozen=True)
class MemoryUse:
    """Memory of the agent beyond that before it loaded the model, in bytes.

    Attributes:
        resident: Median between runs, with its range; the agent's own buffers are included.
        peak: Largest at any moment, loading included; None if an earlier peak of the agent was higher.
    """

    resident: int
    resident_low: int
    resident_high: int
    peak: int | None


@dataclass(frozen=True)
class EnergyUse:
    """Energy of a call in mJ, of the whole phone including the screen, by its battery's charge counter.

    The interval is that of the counter's steps: each end of each part may be off by one.
    """

    mj_per_call: float
    low: float
    high: float


@dataclass(frozen=True)
class Usage:
    """Memory and energy of a model; None if the device does not report them, `energy_note` says why not."""

    memory: MemoryUse | None
    energy: EnergyUse | None
    energy_note: str = ""

    def columns(self) -> dict[str, float | None]:
        """Return `memory_mib`, `memory_low/high/peak` and `energy_mj`, `energy_low/high` as one level."""
        memory, energy = self.memory, self.energy
        mib = (
            (memory.resident, memory.resident_low, memory.resident_high, memory.peak)
            if memory
            else (None,) * 4
        )
        mj = (energy.mj_per_call, energy.low, energy.high) if energy else (None,) * 3
        names = ("memory_mib", "memory_low", "memory_high", "memory_peak")
        sizes = {name: None if size is None else size / 2**20 for name, size in zip(names, mib, strict=True)}
        return sizes | dict(zip(("energy_mj", "energy_low", "energy_high"), mj, strict=True))

    def __str__(self) -> str:
        """Return memory and energy in words; empty if unknown."""
        parts = []
        if memory := self.memory:
            low, high = memory.resident_low / 2**20, memory.resident_high / 2**20
            peak = "" if memory.peak is None else f", {memory.peak / 2**20:.1f} MiB at most, loading included"
            parts.append(f"memory {memory.resident / 2**20:.1f} MiB ({low:.1f} to {high:.1f}){peak}")
        if energy := self.energy:
            interval = f"{energy.low:.3g} to {energy.high:.3g}"
            parts.append(f"energy {energy.mj_per_call:.3g} mJ a call ({interval}), of the whole phone")
        return "; ".join([*parts, *([self.energy_note] if self.energy_note else [])])


def sustained_usage(records: Sequence[Record]) -> Usage:
    """Return memory and energy of a sustained run's journal."""
    batches = [record for record in records if isinstance(record, BatchRecord)]
    parts = [
        [
            (run.state_before, run.state_after, run.ns.size)
            for run in records
            if isinstance(run, RoundsRecord) and not run.rejected and run.segment == batch.segment
        ]
        for batch in batches
    ]
    before = batches[0].state_before if batches else None
    memory = memory_use(before, [after for _, after, _ in parts[0]]) if before else None
    states = [[state for run in part for state in run[:2]] for part in parts if part]
    header = records[0]
    warmup = int(header.identity.policy["warmup"]) if isinstance(header, Header) else 0
    calls = sum(warmup + sum(size for *_, size in part) for part in parts if part)
    return Usage(memory, *_energy(states, calls))


def usage_by_model(records: Sequence[Record]) -> dict[str, Usage]:
    """Return memory and energy by model from a measurement's journal."""
    return {record.model: usage_of_record(record) for record in records if isinstance(record, UsageRecord)}


def usage_of_record(record: UsageRecord) -> Usage:
    """Return what a model took while it was alone in an agent.

    An agent may keep memory of earlier models, which this one uses again. So its memory is at least what was
    added to that (as is its peak), and at most all that the agent has beyond the empty one.
    """
    added, whole = memory_use(record.before, record.after), memory_use(record.empty, record.after)
    memory = None
    if added and whole:
        low, high = sorted((added.resident_low, whole.resident_high))
        memory = MemoryUse((low + high) // 2, low, high, added.peak)
    energy, note = _energy([[record.before, *record.after]], record.calls)
    return Usage(memory, energy, note)


def memory_use(before: DeviceState, after: Sequence[DeviceState]) -> MemoryUse | None:
    """Return how much more memory an agent has in states `after` a load than `before`; None if unknown.

    Only valid for an agent's first load: later ones use memory again that the agent has freed but kept.
    """
    empty = before.agent_memory_bytes
    sizes = [state.agent_memory_bytes for state in after if state.agent_memory_bytes is not None]
    if empty is None or not sizes:
        return None
    peaks = [state.agent_peak_memory_bytes for state in after if state.agent_peak_memory_bytes is not None]
    earlier = before.agent_peak_memory_bytes
    rose = earlier is not None and peaks and max(peaks) > earlier + PEAK_NOISE_BYTES
    return MemoryUse(
        resident=round(statistics.median(sizes)) - empty,
        resident_low=min(sizes) - empty,
        resident_high=max(sizes) - empty,
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

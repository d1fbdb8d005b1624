"""What a device's states say about how it was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from luts.format.errors import InvalidArtifactError
from luts.format.messages import first_problem
from luts.format.schema import LutInputs
from orchestrator.journal.records import BatchRecord, ChunkRecord, EndRecord, Record
from orchestrator.wire.device_state import DeviceState

Switched = Literal["on", "off", "both"]


@dataclass(frozen=True)
class Conditions:
    """Everything seen in kept batches: allowed reasons not to measure, quality of service of the timing thread,
    whether a load kept the processor warm, whether Android's sustained performance mode was on, lists of the cores
    that threads could run on, where inputs lay (`input_buffers` of loads). Empty where the device does not tell."""

    caveats: frozenset[str] = field(default_factory=frozenset)
    qos: frozenset[str] = field(default_factory=frozenset)
    keep_warm: frozenset[bool] = field(default_factory=frozenset)
    sustained_performance: frozenset[bool] = field(default_factory=frozenset)
    cores: frozenset[str] = field(default_factory=frozenset)
    input_buffers: frozenset[str] = field(default_factory=frozenset)

    @property
    def warmth(self) -> Switched | None:
        """`keep_warm` in a word."""
        return _word(self.keep_warm)

    @property
    def sustained(self) -> Switched | None:
        """`sustained_performance` in a word."""
        return _word(self.sustained_performance)


def either(*words: Switched | None) -> Switched | None:
    """Of two parts of a measurement together."""
    known = {word for word in words if word}
    return "both" if len(known) > 1 else next(iter(known), None)


def _word(seen: frozenset[bool]) -> Switched | None:
    return either(*("on" if value else "off" for value in seen))


def conditions(records: Iterable[Record]) -> Conditions:
    """The conditions of a journal's kept batches; one that was never judged counts as kept.

    Raises:
        InvalidArtifactError: a state in the journal is not one.
    """
    records = list(records)
    rejected = {record.batch for record in records if isinstance(record, EndRecord) and not record.kept}
    states = [
        state_of(state)
        for record in records
        if isinstance(record, ChunkRecord) and not record.rejected and record.batch not in rejected
        for state in (record.state_before, record.state_after)
    ]
    batches = [r for r in records if isinstance(r, BatchRecord) and r.batch not in rejected]
    return Conditions(
        frozenset(caveat for state in states for caveat in state.caveats),
        frozenset(state.qos for state in states if state.qos),
        _told(state.keep_warm for state in states),
        _told(state.sustained_performance for state in states),
        frozenset(state.cores for state in states if state.cores),
        frozenset(buffers for batch in batches for buffers in batch.input_buffers if buffers),
    )


def _told(values: Iterable[bool | None]) -> frozenset[bool]:
    return frozenset(value for value in values if value is not None)


def state_of(document: dict[str, Any]) -> DeviceState:
    """A state out of a journal; InvalidArtifactError where it is not one."""
    try:
        return DeviceState.model_validate(document)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"journal: a device's state does not fit its schema at {first_problem(error)}"
        ) from error


def _usage_text(usage: Mapping[str, float]) -> str:
    parts = {"memory": "MiB", "energy": "mJ"}
    return ", ".join(
        f"{usage[f'{name}_{unit.lower()}']:.3g} {unit} ({usage[f'{name}_low']:.3g} to {usage[f'{name}_high']:.3g})"
        for name, unit in parts.items()
        if f"{name}_low" in usage
    )


def described(inputs: LutInputs) -> dict[str, str]:
    """A LUT's conditions for people; nothing of what its device did not tell."""
    both = {"both": "on in some batches, off in others"}
    said = {
        "measured although": ", ".join(inputs.caveats).replace("_", " "),
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
    return {name: text for name, text in said.items() if text}

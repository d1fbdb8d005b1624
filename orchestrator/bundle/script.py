"""What an agent does with a bundle: batches of requests of the protocol, and when to wait or to repeat."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from luts.format.values import Sha256, Value
from orchestrator.wire.fields import (
    MAX_HANDLES,
    MAX_PACE_US,
    MAX_VISITS,
    MAX_WARMUP,
    MAX_WARMUP_MS,
    OptionValue,
)

Slot = Annotated[int, Field(ge=0, lt=MAX_HANDLES)]
Seconds = Annotated[float, Field(ge=0, le=86_400)]
Order = Annotated[list[Annotated[list[Slot], Field(max_length=MAX_VISITS)]], Field(max_length=MAX_VISITS)]


class ScriptBatch(Value):
    """Fresh loads side by side, and what is run of them.

    Attributes:
        pass_index: Which pass over all models it belongs to...
        group: ...and which batch of that.
        slots: Digests of its models; the reference is in slots 0 and 1.
        loading: Slots in the order of their loads.
        orders: Of each run the rounds, of each round the slots that it visits.
        placement: Whether replies to loads are to have it.
    """

    pass_index: Annotated[int, Field(ge=0, le=1000)]
    group: Annotated[int, Field(ge=0, le=100_000)]
    slots: Annotated[list[Sha256], Field(min_length=2, max_length=MAX_HANDLES)]
    loading: Annotated[list[Slot], Field(max_length=MAX_HANDLES)]
    orders: Annotated[list[Order], Field(min_length=1, max_length=1000)]
    placement: bool


FIRST_MODEL = 2
"""The reference is in the slots before this one."""


class Stop(Value):
    """When there is enough; without it all rounds of all batches are run.

    Attributes:
        min_rounds: Of a batch, which ends behind a run as soon as each model's ratio to the reference...
        load_se: ...has at most this relative standard error.
        min_passes: Passes that are made in any case; the bundle ends behind one of the others as soon as...
        half_width: ...every model's relative 95 % interval is at most this wide to either side...
        budget_s: ...or its batches took longer than this.
    """

    min_rounds: Annotated[int, Field(ge=1, le=MAX_VISITS)]
    load_se: Annotated[float, Field(ge=0, le=1)]
    min_passes: Annotated[int, Field(ge=1, le=1000)]
    half_width: Annotated[float, Field(ge=0, le=1)]
    budget_s: Annotated[float, Field(ge=0, le=1e7)]


class Rules(Value):
    """What an agent decides by itself.

    Attributes:
        attempts: Times that a batch is begun at most, where the device gets hot in it or its agent is ended.
        deaths: Times that an agent may be ended while it loads a model, which is left out then.
        poll_s: Pause between two looks at a device that is not ready, or too warm...
        wait_s: ...for so long at most until it is ready, which ends the program, that can go on later...
        cool_s: ...and so long until it is cool, which a batch is begun without.
        hot_headroom: From this thermal headroom on, and from the state `serious` on, a batch is repeated...
        cool_headroom: ...and below it, in the state `nominal`, one is begun.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 4
    deaths: Annotated[int, Field(ge=1, le=100)] = 2
    poll_s: Seconds = 10.0
    wait_s: Seconds = 900.0
    cool_s: Seconds = 300.0
    hot_headroom: float
    cool_headroom: float


class LoadFields(Value):
    """Fields of every `load`."""

    runtime: Annotated[str, Field(max_length=64)]
    options: dict[str, OptionValue]


class RunFields(Value):
    """Fields of every `run`; `warmup` of the first one after the loads, the others have none."""

    warmup: Annotated[int, Field(ge=0, le=MAX_WARMUP)]
    warmup_ms: Annotated[int, Field(ge=0, le=MAX_WARMUP_MS)]
    pace_us: Annotated[int, Field(ge=0, le=MAX_PACE_US)]


class Script(Value):
    """`script.json` of a bundle."""

    rules: Rules
    load: LoadFields
    run: RunFields
    batches: Annotated[list[ScriptBatch], Field(min_length=1, max_length=100_000)]
    stop: Stop | None = None

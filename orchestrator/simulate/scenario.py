"""A made-up device as data: its true costs and what disturbs it; four kinds ready-made, others as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, ValidationError

from luts.format.errors import UsageError
from luts.format.installation import supplied
from luts.format.messages import first_problem
from luts.format.values import Value
from orchestrator.simulate.noise import Noise, StolenCore, Throttling
from orchestrator.simulate.truth import Costs

MAX_SCENARIO_BYTES = 64 << 10
"""Largest scenario that is read; a real one has under 2 KiB."""


class Scenario(Value):
    """A made-up device.

    Attributes:
        name: What LUTs of it are kept under, after `simulated-`.
        cores: Most threads that a model may have.
        costs: True latencies.
        noise: What disturbs them.
        noise_seed: Of the disturbances; None for others every time, as a real device has them.
        load_ms: What a load takes: idle time for the case.
        trip_ms: Idle time before and after a run, in which its schedule and its samples travel.
        pause_s: Idle time after the last model was unloaded, between two batches...
        cooling_s: ...and where the device has told of throttling or heat, so that whoever measures waits.
        real_time: Real seconds that a made-up one takes, for trying what waits for devices; none.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    cores: Annotated[int, Field(ge=1, le=64)] = 4
    costs: Costs = Costs()
    noise: Noise = Noise()
    noise_seed: int | None = None
    load_ms: Annotated[float, Field(ge=0, le=1e6)] = 50.0
    trip_ms: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    pause_s: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    cooling_s: Annotated[float, Field(ge=0, le=1e6)] = 60.0
    real_time: Annotated[float, Field(ge=0, le=1e3)] = 0.0


_CONTEXT = Costs(pair_sd=0.02, spill_ms_per_mib=0.05)
"""Context then makes 0.4 % (`autovit-nano`) to 0.9 % (`autovit-xxs`) of difference between random networks
(standard deviation), some of which entries take up; in a trial on a two-core host networks missed additivity by
0.3 to 0.6 %."""

_QUIET = Noise(load_sd=0.003, sample_sd=0.004, cold_share=0.02)
_PHONE = Noise(
    load_sd=0.006,
    sample_sd=0.01,
    cold_share=0.04,
    drift_sd=0.003,
    outlier_share=0.02,
    throttling=Throttling(),
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(name="quiet", costs=_CONTEXT, noise=_QUIET),
        Scenario(
            name="noisy",
            costs=_CONTEXT,
            noise=Noise(load_sd=0.01, sample_sd=0.03, cold_share=0.05, drift_sd=0.01, outlier_share=0.05),
        ),
        Scenario(name="phone", cores=8, costs=_CONTEXT, noise=_PHONE),
        Scenario(
            name="phone-silent",
            cores=8,
            costs=_CONTEXT,
            noise=_PHONE.model_copy(update={"throttling": Throttling(reported=False)}),
        ),
        Scenario(
            name="stolen-core",
            cores=2,
            costs=_CONTEXT,
            noise=_QUIET.model_copy(update={"load_sd": 0.006, "stolen_core": StolenCore()}),
        ),
    )
}
"""Ready-made. `quiet`: a machine of its own. `noisy`: one with other work, 1 % between loads and a clock that
wanders by a tenth in minutes. `phone`: throttles after a minute of work and says so; `phone-silent` does not say
so. `stolen-core`: another process takes a core for half a second, every five seconds."""


def find_scenario(text: str) -> Scenario:
    """A ready-made scenario by name, or that of a JSON file.

    Raises:
        UsageError: neither, or the file is not a scenario; names the first field that is wrong.
    """
    if text in SCENARIOS:
        return SCENARIOS[text]
    path = Path(text)
    if path.suffix != ".json":
        known = ", ".join(SCENARIOS)
        raise UsageError(f"no scenario {text[:64]!r}; there are {known}, or give a .json file")
    try:
        with path.open("rb") as file:
            return parse_scenario(file.read(MAX_SCENARIO_BYTES + 1))
    except OSError as error:
        raise UsageError(f"can't read the scenario {path}: {error.strerror}; check the path") from None


def parse_scenario(document: bytes | str) -> Scenario:
    """A scenario's JSON as a value; UsageError where it is not one."""
    if len(document) > MAX_SCENARIO_BYTES:
        raise UsageError(f"a scenario has at most {MAX_SCENARIO_BYTES} bytes; give a shorter one")
    try:
        return Scenario.model_validate_json(document)
    except ValidationError as error:
        raise UsageError(
            f"not a scenario: {first_problem(error, 'its JSON')}; see {supplied('docs/lut.md')}"
        ) from None

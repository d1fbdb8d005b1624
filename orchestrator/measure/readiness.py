"""A phone that is in no state to be measured: wait while that may pass, give up where it can't."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from luts.errors import MeasurementRejectedError
from orchestrator.wire.client import AgentClient, RunResult
from orchestrator.wire.errors import AgentError
from orchestrator.wire.messages import Battery, DeviceState

WAIT_S = 900.0
"""How long a phone may take to cool, to be charged, or its owner to bring the app to the front."""

_POLL_S = 10.0
_clock, _sleep = time.monotonic, time.sleep


def may_pass(state: DeviceState) -> bool:
    """Whether what keeps a device from being measured can end by itself or by its owner's hand."""
    return (
        state.thermal_state in ("serious", "critical")
        or state.low_power_mode is True
        or state.foreground is False
        or (state.battery is not None and _is_low(state.battery))
    )


def _is_low(battery: Battery) -> bool:
    return battery.percent < (5.0 if battery.charging else 15.0)


def run_when_ready(
    client: AgentClient,
    handles: Sequence[int],
    order: Sequence[Sequence[int]],
    warmup: int,
    tell: Callable[[str], None],
) -> RunResult:
    """Run a schedule as soon as the agent does not answer `not_ready`.

    Args:
        tell: Called with what is waited for, once for each reason.

    Raises:
        MeasurementRejectedError: the device stays unfit for `WAIT_S`, or for a reason that can't pass.
    """
    deadline_s, told = _clock() + WAIT_S, ""
    while True:
        try:
            return client.run(handles, order, warmup)
        except AgentError as error:
            if error.code != "not_ready":
                raise
            if _clock() > deadline_s or not may_pass(client.state()):
                raise MeasurementRejectedError(f"{error}; what was measured is kept") from error
            if str(error) != told:
                told = str(error)
                tell(f"waiting, {told}")
        _sleep(_POLL_S)

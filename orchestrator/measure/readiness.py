"""A device that is in no state to be measured: wait while that may pass, give up where it can't."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from orchestrator.journal.errors import MeasurementRejectedError
from orchestrator.journal.throttle import HOT_HEADROOM
from orchestrator.measure.link import Link
from orchestrator.wire.client import RunResult
from orchestrator.wire.device_state import Battery, DeviceState
from orchestrator.wire.errors import AgentError, DeviceError

WAIT_S = 900.0
"""How long a phone may take to cool, to be charged, or its owner to bring the app to the front."""

MEMORY_WAIT_S = 120.0
"""How long a model waits for free memory before it is left out: what takes it beside an idle bench, an export or a
page of a browser, is gone by then. Without its reference nothing can be measured, which waits `WAIT_S`."""

COOL_HEADROOM = HOT_HEADROOM - 0.08
"""A batch begins below this: some 2 degrees below what ends it."""

_POLL_S = 10.0
_SHOW_S = 1.0
"""An app that was brought to the front is there within a second."""

_clock, _sleep = time.monotonic, time.sleep


def may_pass(state: DeviceState) -> bool:
    """Whether what keeps a device from being measured can end by itself or by its owner's hand."""
    return (
        state.thermal_state in ("serious", "critical")
        or (state.thermal_headroom or 0.0) >= HOT_HEADROOM
        or state.low_power_mode is True
        or state.foreground is False
        or (state.battery is not None and _is_low(state.battery))
    )


def cool_down(link: Link, limit_s: float, tell: Callable[[str], None]) -> None:
    """Waits while the device is too warm to begin a batch, for `limit_s` at most: it may be warm for long.

    Not where it is to be measured although it throttles.
    """
    if "throttled" in link.device.allow:
        return
    deadline_s = _clock() + limit_s
    while _clock() < deadline_s:
        state = link.client.state()
        if state.thermal_state in (None, "nominal") and (state.thermal_headroom or 0.0) < COOL_HEADROOM:
            return
        tell(f"letting {link.device.name} cool before the next batch")
        _sleep(_POLL_S)


def _is_low(battery: Battery) -> bool:
    return battery.percent < (5.0 if battery.charging else 15.0)


def run_when_ready(
    link: Link,
    handles: Sequence[int],
    order: Sequence[Sequence[int]],
    warmup: int,
    warmup_ms: int,
    tell: Callable[[str], None],
    pace_us: int = 0,
    keep_warm: bool | None = None,
) -> RunResult:
    """Run a schedule as soon as the agent does not answer `not_ready`; its app is brought to the front for that.

    Args:
        tell: Called with what is waited for, once for each reason.

    Raises:
        MeasurementRejectedError: the device stays unfit for `WAIT_S`, or for a reason that can't pass.
    """
    deadline_s, told = _clock() + WAIT_S, ""
    while True:
        try:
            return link.client.run(handles, order, warmup, warmup_ms, pace_us, keep_warm)
        except AgentError as error:
            if error.code != "not_ready":
                raise
            state = link.client.state()
            if _clock() > deadline_s or not may_pass(state):
                raise MeasurementRejectedError(f"{error}; what was measured is kept") from error
            if str(error) != told:
                told = str(error)
                tell(f"waiting, {told}")
        _sleep(_SHOW_S if state.foreground is False and _shown(link) else _POLL_S)


def _shown(link: Link) -> bool:
    """Whether the app could be brought to the front."""
    try:
        link.device.bring_to_front()
    except DeviceError:
        return False
    return True


class MemoryWait:
    """Waiting of one batch for free memory."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._since_s: float | None = None

    def again(self, reason: str, limit_s: float) -> bool:
        """Whether to try again, a while from now: False once the batch has waited for `limit_s` in all."""
        if self._since_s is None:
            self._since_s = _clock()
            self._tell(f"waiting for free memory, {reason}")
        elif _clock() - self._since_s > limit_s:
            return False
        _sleep(_POLL_S)
        return True

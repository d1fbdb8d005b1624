"""When a device was in no state to be measured."""

from __future__ import annotations

from orchestrator.wire.device_state import DeviceState


def throttle_reason(before: DeviceState, after: DeviceState, cores: str = "") -> str:
    """Why what ran between two states does not count; "" where nothing known speaks against it.

    `cores` are those that threads were pinned to, if any. What the agent was told to ignore does not count here
    either; the LUT names it.
    """
    for state in (before, after):
        if state.thermal_state in ("serious", "critical") and "throttled" not in state.caveats:
            return f"thermal state {state.thermal_state}"
        if state.low_power_mode and "power_save" not in state.caveats:
            return "low-power mode was on"
    counts = before.throttle_count, after.throttle_count
    if None not in counts and counts[0] != counts[1]:
        return "the processor throttled"
    elsewhere = {before.cores, after.cores} - {None, cores} if cores else set()
    if elsewhere:
        return f"threads could run on cores {min(map(str, elsewhere))} and not on {cores} alone"
    return ""

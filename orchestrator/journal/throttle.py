"""When a device was in no state to be measured."""

from __future__ import annotations

from orchestrator.wire.device_state import DeviceState

HOT_HEADROOM = 0.73
"""Of Android's thermal headroom, which is 1 where throttling gets severe and falls by 1 for 30 degrees less (AOSP's
ThermalManagerService). A Pixel 8 cuts its power budget 8 degrees before severe: from 1 - 8/30 on."""


def moved_cap(before: DeviceState, after: DeviceState) -> str:
    """Which core's highest clock changed between two states, in words; "" where none did."""
    caps = {clock.cpu: clock.max_mhz for clock in before.cpus}
    for clock in after.cpus:
        cap = caps.get(clock.cpu)
        if cap and clock.max_mhz and cap != clock.max_mhz:
            return f"the clock of core {clock.cpu} was capped at {clock.max_mhz:.0f} MHz after {cap:.0f} MHz"
    return ""


def throttle_reason(before: DeviceState, after: DeviceState, cores: str = "") -> str:
    """Why what ran between two states does not count; "" where nothing known speaks against it.

    `cores` are those that threads were pinned to, if any. What the agent was told to ignore does not count here
    either; the LUT names it.
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
    if (cap := moved_cap(before, after)) and "throttled" not in after.caveats:
        return cap
    elsewhere = {before.cores, after.cores} - {None, cores} if cores else set()
    if elsewhere:
        return f"threads could run on cores {min(map(str, elsewhere))} and not on {cores} alone"
    return ""

"""The device's state as its agent tells it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.wire.fields import Count, Text, WireValue


class CpuClock(WireValue):
    """A core's clock, the highest that it may have now, and the highest that its hardware has."""

    cpu: Count
    mhz: float | None
    max_mhz: float | None
    governor: Text | None
    hardware_max_mhz: float | None = None


class ThermalZone(WireValue):
    name: Text
    celsius: float


class Battery(WireValue):
    """`charge_uah`: what is left, by the battery's own counter."""

    percent: float
    charging: bool | None
    celsius: float | None
    charge_uah: Count | None = None
    voltage_mv: Count | None = None


Caveat = Literal["debuggable_build", "power_save", "low_battery", "throttled", "background"]


class DeviceState(WireValue):
    """A moment of the device. A field is null where the device does not tell; nothing is guessed.

    `caveats` are reasons not to measure that the agent was told to ignore, `cores` those that its threads may
    run on (`4-8`).
    """

    uptime_ns: Count
    load_average_1m: float | None
    cpus: list[CpuClock]
    steal_ms: Count | None
    thermal_state: Literal["nominal", "fair", "serious", "critical"] | None
    thermal_headroom: float | None
    thermal_zones: list[ThermalZone]
    throttle_count: Count | None
    battery: Battery | None
    low_power_mode: bool | None
    free_memory_bytes: Count | None
    agent_memory_bytes: Count | None
    agent_peak_memory_bytes: Count | None = None
    qos: Text | None
    foreground: bool | None
    keep_warm: bool | None = None
    sustained_performance: bool | None = None
    cores: Text | None = None
    caveats: list[Caveat] = Field(default=[], max_length=16)

"""What disturbs a made-up processor, in time that passes only while it works or rests. Pure and seeded.

One execution of a network that takes q undisturbed takes
    q * load * exp(sample_sd * z) * exp(drift) * cold * throttle * ramp * stolen * outlier,
where `load` is drawn once a load and everything else at every execution.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from luts.format.values import Value

Deviation = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Celsius = Annotated[float, Field(ge=-50, le=150)]

_NS = 1e9


class Throttling(Value):
    """A case that warms up by `rise_c` above `ambient_c` under lasting work, with time constant `tau_s`.

    Above `hot_c` the processor slows down by the factor `slowdown` and turns `throttled_power` of its full power
    into heat, until it is below `cool_c`: hysteresis. `reported`: the device's state tells of it, as phones' do.
    """

    tau_s: Seconds = 60.0
    ambient_c: Celsius = 25.0
    rise_c: Annotated[float, Field(gt=0, le=200)] = 40.0
    hot_c: Celsius = 50.0
    cool_c: Celsius = 42.0
    slowdown: Annotated[float, Field(ge=1, le=20)] = 1.6
    throttled_power: Annotated[float, Field(ge=0, le=1)] = 0.3
    reported: bool = True


class StolenCore(Value):
    """Another process takes one core in bursts: two states with exponential durations (a Markov chain).

    All that runs in a burst is slower by the factor 1 + `strength` * threads / cores: a pool that fills the machine
    waits for the thread that shares its core, a single thread mostly gets out of the way.
    """

    mean_quiet_s: Seconds = 5.0
    mean_burst_s: Seconds = 0.5
    strength: Annotated[float, Field(ge=0, le=20)] = 0.8


class ClockRamp(Value):
    """A clock that falls as soon as the processor idles and climbs, with time constant `tau_s`, as it works: right
    after idle time all takes longer by the share `slow`."""

    tau_s: Seconds = 0.03
    slow: Annotated[float, Field(ge=0, le=20)] = 1.0


class Noise(Value):
    """All disturbances; by default there are none.

    Attributes:
        load_sd: Of a load's own level (log). 0.5 to 0.8 % on a two-core host.
        sample_sd: Of one execution (log).
        cold_share: By how much an execution takes longer right after one of another model: evicted caches...
        cold_runs: ...and so many in a row after it.
        crowd_share: By how much every execution takes longer while more than `crowd_models` are loaded.
        drift_sd: Of the random walk of the clock (log) after one second; it grows with the root of time and is
            common to all models.
        outlier_share: Share of executions that are preempted.
        outlier_scale: A preempted one takes 1 + scale * p times as long, p from a Pareto distribution (Lomax)...
        outlier_tail: ...with this exponent: at 2 or less its variance is infinite.
    """

    load_sd: Deviation = 0.0
    sample_sd: Deviation = 0.0
    cold_share: Deviation = 0.0
    cold_runs: Annotated[int, Field(ge=1, le=100)] = 1
    crowd_share: Deviation = 0.0
    crowd_models: Annotated[int, Field(ge=0, le=256)] = 0
    drift_sd: Deviation = 0.0
    outlier_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    outlier_scale: Annotated[float, Field(ge=0, le=100)] = 0.5
    outlier_tail: Annotated[float, Field(gt=0.5, le=20)] = 1.5
    throttling: Throttling | None = None
    stolen_core: StolenCore | None = None
    clock_ramp: ClockRamp | None = None


class Processor:
    """Spends made-up time on executions. The same seed and calls give the same times.

    `now_ns` is its clock; `throttled` and `celsius` its state (`celsius` is None without throttling).
    """

    def __init__(self, noise: Noise, cores: int = 1, seed: int | None = 0) -> None:
        self.noise, self.cores = noise, cores
        self.now_ns = 0
        self.throttled = False
        self.celsius = noise.throttling.ambient_c if noise.throttling else None
        self._rng = np.random.default_rng(seed)
        self._drift = 0.0
        self._idled = 1.0
        self._burst = False
        self._burst_changes_ns = math.inf
        if noise.stolen_core:
            self._burst_changes_ns = self._rng.exponential(noise.stolen_core.mean_quiet_s) * _NS

    def draw_load(self) -> float:
        """The factor of a fresh load's own level."""
        return math.exp(self.noise.load_sd * self._rng.standard_normal())

    def execute(self, quiet_ns: float, threads: int = 1, *, cold: bool = False) -> int:
        """Nanoseconds that an execution takes now; the clock is advanced by them.

        Args:
            quiet_ns: What it takes undisturbed, the load's factor included.
            threads: That it runs on.
            cold: Another model ran right before.
        """
        noise, rng = self.noise, self._rng
        factor = math.exp(noise.sample_sd * rng.standard_normal() + self._drift)
        if cold:
            factor *= 1.0 + noise.cold_share
        if self.throttled and noise.throttling:
            factor *= noise.throttling.slowdown
        if noise.clock_ramp:
            factor *= 1.0 + noise.clock_ramp.slow * self._idled
        if self._is_stolen() and noise.stolen_core:
            factor *= 1.0 + noise.stolen_core.strength * threads / self.cores
        if noise.outlier_share and rng.random() < noise.outlier_share:
            factor *= 1.0 + noise.outlier_scale * rng.pareto(noise.outlier_tail)
        taken_ns = max(1, round(quiet_ns * factor))
        self._pass(taken_ns, working=True)
        return taken_ns

    def rest(self, seconds: float) -> None:
        """Let time pass without work."""
        self._pass(round(seconds * _NS), working=False)

    def _pass(self, taken_ns: int, *, working: bool) -> None:
        self.now_ns += taken_ns
        if self.noise.drift_sd:
            self._drift += self.noise.drift_sd * math.sqrt(taken_ns / _NS) * self._rng.standard_normal()
        if ramp := self.noise.clock_ramp:
            self._idled = self._idled * math.exp(-taken_ns / _NS / ramp.tau_s) if working else 1.0
        case = self.noise.throttling
        if case is not None and self.celsius is not None:
            power = 0.0 if not working else case.throttled_power if self.throttled else 1.0
            level = case.ambient_c + case.rise_c * power
            self.celsius = level + (self.celsius - level) * math.exp(-taken_ns / _NS / case.tau_s)
            self.throttled = self.celsius > (case.cool_c if self.throttled else case.hot_c)

    def _is_stolen(self) -> bool:
        stolen = self.noise.stolen_core
        while stolen and self.now_ns >= self._burst_changes_ns:
            self._burst = not self._burst
            mean_s = stolen.mean_burst_s if self._burst else stolen.mean_quiet_s
            self._burst_changes_ns += self._rng.exponential(mean_s) * _NS
        return self._burst

"""A simulated device: its scenario, its true latencies and its noise. Pure and seeded."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, StringConstraints, ValidationError

from luts.estimate.physics import physics_ms
from luts.format.errors import InvalidArtifactError, UsageError, first_problem
from luts.format.operators import Operator, parse_operator
from luts.format.provenance import repo_file
from luts.format.schema import MAX_BLOCKS, MIB, Coefficients, Key, Ms, Value
from orchestrator.plan.plan import features_of
from orchestrator.wire.client import ModelFile
from search.blocks import BlockSpec, boundary_bytes, parse_key, parse_keys
from search.blocks.sequence import BYTES_PER_ELEMENT

Deviation = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]
Celsius = Annotated[float, Field(ge=-50, le=150)]

_NS = 1e9


class Throttling(Value):
    """A case that warms up by `rise_c` above `ambient_c` under lasting work, with time constant `tau_s`.

    Above `hot_c` the processor slows down by the factor `slowdown` and turns `throttled_power` of its full
    power into heat, until it is below `cool_c` (hysteresis). `reported`: whether the device's state shows it.
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

    Everything in a burst is slower by the factor 1 + `strength` * threads / cores: a pool that fills the
    machine waits for the thread that shares its core, a single thread mostly avoids it.
    """

    mean_quiet_s: Seconds = 5.0
    mean_burst_s: Seconds = 0.5
    strength: Annotated[float, Field(ge=0, le=20)] = 0.8


class ClockRamp(Value):
    """A clock that falls as soon as the processor idles and rises with time constant `tau_s` as it works.

    Right after idle time everything takes longer by the fraction `slow`.
    """

    tau_s: Seconds = 0.03
    slow: Annotated[float, Field(ge=0, le=20)] = 1.0


class Noise(Value):
    """All disturbances; by default there are none.

    Attributes:
        load_sd: Standard deviation of a load's own level (log); 0.5 to 0.8 % on a two-core host.
        sample_sd: Standard deviation of one execution (log).
        cold_share: Relative increase of an execution right after one of another model: evicted caches.
        cold_runs: Number of such executions in a row after another model.
        crowd_share: Relative increase of every execution while more than `crowd_models` are loaded.
        crowd_models: See `crowd_share`.
        drift_sd: Standard deviation of the clock's random walk (log) after one second; it grows with the root
            of time and is common to all models.
        outlier_share: Fraction of executions that are preempted.
        outlier_scale: A preempted one takes 1 + scale * p times as long, with p from a Pareto distribution
            (Lomax).
        outlier_tail: Exponent of that distribution; at 2 or less its variance is infinite.
        throttling: Thermal throttling.
        stolen_core: Another process.
        clock_ramp: A clock that falls when idle.
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
    """Spends simulated time on executions; the same seed and calls give the same times.

    `celsius` is its temperature; None without throttling.
    """

    def __init__(self, noise: Noise, cores: int = 1, seed: int | None = 0) -> None:
        """Simulate a processor; `seed` None gives other disturbances every time."""
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
        """Return the factor of a fresh load's own level."""
        return math.exp(self.noise.load_sd * self._rng.standard_normal())

    def execute(self, quiet_ns: float, threads: int = 1, *, cold: bool = False) -> int:
        """Return the nanoseconds that an execution takes now, and advance the clock by them.

        `quiet_ns` is the undisturbed duration, the load's factor included; `cold`: another model ran right
        before.
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


Share = Annotated[float, Field(ge=0, le=1)]


class TrueCosts(Value):
    """Parameters of the true latencies, on one thread.

    The defaults make random networks of `autovit-xxs` take 12 to 35 ms, as on one core of a two-core host: 50
    GMAC/s, 20 GiB/s of activations and weights, 30 us a block.

    Attributes:
        seed: Seed of the deviations of blocks and of pairs of blocks.
        base_ms: Latency of a call without any block.
        transfer_ms_per_mib: Cost of data between blocks.
        constant_ms, ms_per_mmac, ms_per_mib: Physics of a block: launch, MACs, bytes moved, as the joint fit
            counts them (weights twice).
        depthwise: Cost of a depthwise convolution's MAC relative to others: wide vectors help it less.
        deviation_sd: Standard deviation of blocks from physics (log).
        own_seed, own_sd: The same for one device: devices with equal `seed` differ only by this.
        pair_sd: Context: standard deviation of a block's relative extra cost by the block before it: layouts
            that fit, kernels that share packed data.
        cache_mib, spill_ms_per_mib: Context: cost of a block's input that has left the cache, because the
            block and the block before together do not fit into it.
        serial_share: Fraction of a block's work that further threads do not share (Amdahl).
    """

    seed: int = 0
    base_ms: Ms = 0.1
    transfer_ms_per_mib: Ms = 0.05
    constant_ms: Ms = 0.03
    ms_per_mmac: Ms = 0.02
    ms_per_mib: Ms = 0.05
    depthwise: Annotated[float, Field(gt=0, le=100)] = 1.0
    deviation_sd: Share = 0.15
    own_seed: int = 0
    own_sd: Share = 0.0
    pair_sd: Share = 0.0
    cache_mib: Annotated[float, Field(gt=0, le=1024)] = 2.0
    spill_ms_per_mib: Ms = 0.0
    serial_share: Share = 0.1

    def additive(self) -> TrueCosts:
        """Return the same costs without context effects."""
        return self.model_copy(update={"pair_sd": 0.0, "spill_ms_per_mib": 0.0})


class GroundTruth:
    """The latency of every network of known blocks, on a number of threads.

    Blocks are given by key in order of execution; methods raise UsageError for an unknown key.
    """

    def __init__(self, costs: TrueCosts, threads: int = 1) -> None:
        """Use these costs with `threads` threads."""
        self.costs = costs
        self._scale = costs.serial_share + (1.0 - costs.serial_share) / threads
        self._entries: dict[str, float] = {}

    @property
    def base_ms(self) -> float:
        """Latency of a call without any block, in ms."""
        return self.costs.base_ms

    def entry_ms(self, key: str) -> float:
        """Return a block's own cost in ms, independent of its neighbours."""
        if key not in self._entries:
            self._entries[key] = self._scale * self._entry_ms(key)
        return self._entries[key]

    def additive_ms(self, blocks: Sequence[str]) -> float:
        """Return the part of a network's latency that is a sum over blocks, in ms."""
        moved_ms = self.costs.transfer_ms_per_mib * boundary_bytes(_without_operators(blocks)) / MIB
        return self.base_ms + sum(map(self.entry_ms, blocks)) + moved_ms

    def context_ms(self, blocks: Sequence[str]) -> float:
        """Return what neighbours add to each other, above or below the additive part, in ms."""
        costs, total_ms = self.costs, 0.0
        for before, block in pairwise(_without_operators(blocks)):
            if costs.pair_sd:
                z = _normal(f"{costs.seed}:{before.key}:{block.key}")
                total_ms += costs.pair_sd * z * self.entry_ms(block.key)
            if costs.spill_ms_per_mib:
                total_ms += self._scale * costs.spill_ms_per_mib * self._spilled_mib(before, block)
        return total_ms

    def latency_ms(self, blocks: Sequence[str]) -> float:
        """Return the quiet latency of the network in ms."""
        return self.additive_ms(blocks) + self.context_ms(blocks)

    def _entry_ms(self, key: str) -> float:
        costs, operator = self.costs, _operator(key)
        price = Coefficients(
            constant_ms=costs.constant_ms,
            ms_per_mmac=costs.ms_per_mmac,
            ms_per_depthwise_mmac=costs.depthwise * costs.ms_per_mmac,
            ms_per_mib=costs.ms_per_mib,
        )
        feature = operator.features if operator else features_of([parse_key(key)])[key]
        deviation = costs.deviation_sd * _normal(f"{costs.seed}:{key}")
        if costs.own_sd:
            deviation += costs.own_sd * _normal(f"own:{costs.own_seed}:{key}")
        return physics_ms(feature, price) * math.exp(deviation)

    def _spilled_mib(self, before: BlockSpec, block: BlockSpec) -> float:
        live_mib = (before.costs.live_elements + block.costs.live_elements) * BYTES_PER_ELEMENT / MIB
        return min(boundary_mib(before.key), max(0.0, live_mib - self.costs.cache_mib))


def boundary_mib(key: str) -> float:
    """Return the size of a block's output in MiB, 0 for an operator, whose costs hold its maps."""
    return boundary_bytes(_without_operators((key, key))) / MIB


@functools.lru_cache(maxsize=1 << 16)
def _operator(key: str) -> Operator | None:
    """Return the operator of a key, None of a block's."""
    try:
        return parse_operator(key)
    except InvalidArtifactError:
        return None


def _without_operators(keys: Sequence[str]) -> tuple[BlockSpec, ...]:
    """Return the blocks; operators cost the same after any other."""
    return parse_keys(key for key in keys if not _operator(key))


@functools.lru_cache(maxsize=1 << 16)
def _normal(label: str) -> float:
    """Return a standard normal number of a label: always the same, independent of those of other labels."""
    seed = int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "big")
    return float(np.random.default_rng(seed).standard_normal())


MAX_SCENARIO_BYTES = 64 << 10
"""Largest scenario that is read; a real one has under 2 KiB."""


class Scenario(Value):
    """A simulated device.

    Attributes:
        name: Name of its LUTs, after `simulated-`.
        cores: Most threads of a model.
        costs: True latencies.
        noise: Disturbances.
        noise_seed: Seed of the disturbances; None for others every time, as on a real device.
        load_ms: Duration of a load: idle time for the case.
        trip_ms: Idle time before and after a run, in which its schedule and its samples are transferred.
        pause_s: Idle time after the last model was unloaded, between two batches.
        cooling_s: The same if the device has reported throttling or heat, so that the client waits.
        real_time: Real seconds for each simulated one, to try what waits for devices; default: none.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    cores: Annotated[int, Field(ge=1, le=64)] = 4
    costs: TrueCosts = TrueCosts()
    noise: Noise = Noise()
    noise_seed: int | None = None
    load_ms: Annotated[float, Field(ge=0, le=1e6)] = 50.0
    trip_ms: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    pause_s: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    cooling_s: Annotated[float, Field(ge=0, le=1e6)] = 60.0
    real_time: Annotated[float, Field(ge=0, le=1e3)] = 0.0


_CONTEXT = TrueCosts(pair_sd=0.02, spill_ms_per_mib=0.05)
"""Context then makes 0.4 % (`autovit-nano`) to 0.9 % (`autovit-xxs`) of difference between random networks
(standard deviation), some of which goes into entries; in a trial on a two-core host networks missed
additivity by 0.3 to 0.6 %.
"""

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
"""Predefined scenarios. `quiet`: a machine of its own. `noisy`: one with other work, 1 % between loads and a
clock that varies by a tenth in minutes. `phone`: throttles after a minute of work and reports it; `phone-
silent` does not report it. `stolen-core`: another process takes a core for half a second, every five
seconds.
"""


def find_scenario(text: str) -> Scenario:
    """Return a predefined scenario by name, or that of a JSON file.

    Raises UsageError: neither, or the file is not a scenario; names the first field that is wrong.
    """
    if text in SCENARIOS:
        return SCENARIOS[text]
    path = Path(text)
    if path.suffix != ".json":
        known = ", ".join(SCENARIOS)
        raise UsageError(
            f"unknown scenario {text[:64]!r}; known: {known}, or give a .json file", code="unknown_scenario"
        )
    try:
        with path.open("rb") as file:
            return parse_scenario(file.read(MAX_SCENARIO_BYTES + 1))
    except OSError as error:
        raise UsageError(
            f"can't read the scenario {path}: {error.strerror}; check the path", code="unreadable_file"
        ) from None


def parse_scenario(document: bytes | str) -> Scenario:
    """Return the scenario of a JSON document; raises UsageError."""
    if len(document) > MAX_SCENARIO_BYTES:
        raise UsageError(
            f"a scenario has at most {MAX_SCENARIO_BYTES} bytes; give a shorter one", code="invalid_scenario"
        )
    try:
        return Scenario.model_validate_json(document)
    except ValidationError as error:
        raise UsageError(
            f"not a scenario: {first_problem(error, 'its JSON')}; see {repo_file('docs/lut.md')}",
            code="invalid_scenario",
        ) from None


MAX_MODEL_BYTES = 256 * MAX_BLOCKS
"""Largest model file: keys have at most 160 characters and their quotes."""


class SimulatedModelFile(Value):
    """Content of a model file."""

    format: Literal["blocktime-simulated-model"] = "blocktime-simulated-model"
    blocks: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_BLOCKS)]


def write_model(blocks: Sequence[str], folder: Path) -> ModelFile:
    """Write the model of these blocks into `folder`, named by its sha256: equal blocks, equal file."""
    content = SimulatedModelFile(blocks=tuple(blocks)).model_dump_json().encode()
    sha256 = hashlib.sha256(content).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sha256}.json"
    path.write_bytes(content)
    return ModelFile(path, sha256)


def read_model(path: Path) -> tuple[str, ...]:
    """Return the block keys of a model file.

    Raises InvalidArtifactError: it is not a model of a simulated device, or names a block that does not
    exist.
    """
    with path.open("rb") as file:
        content = file.read(MAX_MODEL_BYTES + 1)
    try:
        if len(content) > MAX_MODEL_BYTES:
            raise InvalidArtifactError(
                f"not a simulated model: over {MAX_MODEL_BYTES} bytes", code="invalid_model"
            )
        blocks = SimulatedModelFile.model_validate_json(content).blocks
        _without_operators(blocks)
    except ValidationError as error:
        raise InvalidArtifactError(
            f"not a simulated model ({first_problem(error)}); a simulated device only runs lists of blocks",
            code="invalid_model",
        ) from None
    except UsageError as error:
        raise InvalidArtifactError(f"not a simulated model: {error}", code="invalid_model") from None
    return blocks

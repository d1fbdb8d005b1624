"""The connection to a device, and waiting until it is fit to be measured: cool, charged, in front, with memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.conditions import HOT_HEADROOM
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.wire.client import SILENCE_LIMIT_S, AgentClient, ModelFile, RunResult
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError
from orchestrator.wire.messages import DeviceState, HelloReply, LoadReply

ALONE_SILENCE_S = 600.0
"""Silence after which an agent that runs a single model has hung. A large network on portable kernels can take
minutes an execution on a slow phone; nobody measures one that takes longer than this."""

SILENT_CALLS = 3
"""Executions of the slowest model that a silence may last: signs of life come between two, and a phone that
throttles takes twice as long."""


class DeviceConnection:
    """One client of a device's agent; after `drop` the next use connects again."""

    def __init__(self, device: Device, runtime: str, options: Mapping[str, bool | int | str]) -> None:
        """Prepare a connection that loads models with a runtime and its options."""
        self.device, self.runtime, self.options = device, runtime, dict(options)
        self.cool_states: set[str | None] = {None, "nominal"}
        """Thermal states in which a batch starts: `fair` too after a full wait in vain, a caveat of the LUT."""
        self.reports_headroom = False
        """Whether the device has ever reported its thermal headroom: then none does not mean that it is cool."""
        self.slowest_s = 0.0
        """Longest execution among the models that ran alone after the agent seemed to hang."""
        self._client: AgentClient | None = None

    @classmethod
    @contextlib.contextmanager
    def opened(cls, device: Device, variant: Variant) -> Iterator[Self]:
        """Yield a connection that loads a variant's models, and drop it at the end of the context."""
        connection = cls(device, variant.runtime, variant.load_options)
        try:
            yield connection
        finally:
            connection.drop()

    @property
    def client(self) -> AgentClient:
        """The client, connected now if there is none; raises DeviceError if the device does not answer."""
        if self._client is None:
            self._client = self.device.connect()
            self._client.silence_limit_s = max(SILENCE_LIMIT_S, SILENT_CALLS * self.slowest_s)
            with contextlib.suppress(DeviceError):  # the next request reports the problem
                if self._client.state().foreground is False:
                    self.device.bring_to_front()
        return self._client

    def hello(self) -> HelloReply:
        """Return what the agent says about itself."""
        return self.client.hello()

    def load(self, file: ModelFile, waited: Callable[[float], None] = lambda _: None) -> LoadReply:
        """Load a model once more, sending it first if the device lacks it; `waited` as in `AgentClient.load`."""
        self.client.ensure(file.path, file.sha256)
        return self.client.load(file.sha256, file.runtime or self.runtime, self.options, waited)

    def drop(self) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close()
        self._client = None


@dataclass(frozen=True)
class CallSchedule:
    """What a run executes; fields as in `AgentClient.run`."""

    handles: Sequence[int]
    order: Sequence[Sequence[int]]
    warmup: int = 0
    warmup_ms: int = 0
    pace_us: int = 0
    keep_warm: bool | None = None


WAIT_S = 900.0
"""Longest wait for a phone to cool, to be charged, or for its owner to bring the app to the front."""

MEMORY_WAIT_S = 120.0
"""Longest wait of a model for free memory before it is excluded: another program's peak (an export, a web page) is
over by then. Nothing can be measured without the reference, which waits `WAIT_S`."""

COOL_HEADROOM = HOT_HEADROOM - 0.08
"""A batch starts below this thermal headroom: about 2 degrees below what ends it."""

LOW_BATTERY_PERCENT = 25
"""Android agents do not measure below this charge, as androidx.benchmark (Errors.kt); others have lower limits."""

_POLL_S = 10.0
_SHOW_S = 1.0
"""An app that was brought to the front is there within a second, and so is a new thermal headroom."""

_clock, _sleep = time.monotonic, time.sleep


def may_pass(state: DeviceState) -> bool:
    """Return whether a blocking condition can clear on its own or by the owner's action."""
    return (
        state.thermal_state in ("serious", "critical")
        or (state.thermal_headroom or 0.0) >= HOT_HEADROOM
        or state.low_power_mode is True
        or state.foreground is False
        or (state.battery is not None and state.battery.percent < LOW_BATTERY_PERCENT)
    )


def cool_down(connection: DeviceConnection, limit_s: float, notify: Callable[[str], None]) -> None:
    """Wait while the device is too warm to start a batch, for at most `limit_s`; not if throttling is allowed."""
    if "throttled" in connection.device.allow:
        return
    deadline_s = _clock() + limit_s
    while _clock() < deadline_s:
        state = connection.client.state()
        headroom = state.thermal_headroom
        connection.reports_headroom |= headroom is not None
        if headroom is None and connection.reports_headroom:
            _sleep(_SHOW_S)
            continue
        if state.thermal_state in connection.cool_states and (headroom or 0.0) < COOL_HEADROOM:
            return
        notify(f"letting {connection.device.name} cool before the next batch")
        _sleep(_POLL_S)
    connection.cool_states.add("fair")


def run_when_ready(
    connection: DeviceConnection, schedule: CallSchedule, notify: Callable[[str], None]
) -> RunResult:
    """Run a schedule as soon as the agent does not answer `not_ready`; brings its app to the front if needed.

    `notify` is called with each new reason for waiting.

    Raises MeasurementRejectedError: the device stays unfit for `WAIT_S`, or for a reason that can't clear.
    """
    deadline_s, reason = _clock() + WAIT_S, ""
    while True:
        try:
            return connection.client.run(
                schedule.handles,
                schedule.order,
                schedule.warmup,
                schedule.warmup_ms,
                schedule.pace_us,
                schedule.keep_warm,
            )
        except AgentError as error:
            if error.code != "not_ready":
                raise
            state = connection.client.state()
            if _clock() > deadline_s or not may_pass(state):
                raise MeasurementRejectedError(
                    f"{error}; measurements so far are kept", code="device_not_ready"
                ) from error
            if str(error) != reason:
                reason = str(error)
                notify(f"waiting, {reason}")
        _sleep(_SHOW_S if state.foreground is False and _bring_to_front(connection) else _POLL_S)


def _bring_to_front(connection: DeviceConnection) -> bool:
    """Return whether the app could be brought to the front."""
    try:
        connection.device.bring_to_front()
    except DeviceError:
        return False
    return True


@dataclass
class MemoryWait:
    """The waiting of one batch for free memory; `notify` is called at the first wait."""

    notify: Callable[[str], None]
    since_s: float | None = None

    def wait(self, reason: str, limit_s: float) -> bool:
        """Wait a while; return False instead once the batch has waited for `limit_s` in all."""
        if self.since_s is None:
            self.since_s = _clock()
            self.notify(f"waiting for free memory, {reason}")
        elif _clock() - self.since_s > limit_s:
            return False
        _sleep(_POLL_S)
        return True


_ATTEMPTS = 2
_RUNS = 3
_CRASHES_BEFORE_SEARCH = 2
_MODEL_ERRORS = ("bad_model", "out_of_memory", "run_failed")


class ReferenceFailedError(InvalidArtifactError):
    """The device can't run the reference, to which every model is compared; `reason` says why."""

    def __init__(self, device: str, reason: str) -> None:
        """Name the device and the reason."""
        super().__init__(
            f"the reference model can't be measured on {device}: {reason}; "
            "choose another runtime, backend or precision",
            code="reference_failed",
        )
        self.reason = reason


def refusal_reason(error: AgentError) -> str:
    """Return why the runtime refuses a model; raises the error itself if the model is not the cause."""
    if error.code not in _MODEL_ERRORS:
        raise error
    return f"{error.code}: {error}"


@dataclass
class CrashingModels:
    """Finds the models that crash the agent, from the crashes in one batch."""

    connection: DeviceConnection
    files: Mapping[str, ModelFile]
    notify: Callable[[str], None]
    crashes: int = 0

    def find(self, models: Sequence[str], loading: str) -> dict[str, str]:
        """Return the models to exclude after a crash, with the reason; empty to try the batch again.

        The model that was being loaded (empty if none was) is suspected first; at the second unexplained
        crash each model is tried alone; at the third all of the batch but the reference, its first, are
        excluded: they crash only together.

        Raises AgentLostError: the device was lost and did not come back.
        """
        self.crashes += 1
        if loading:
            self.notify(f"the agent crashed or hung while loading {loading}: trying that model alone")
        found = self._try_alone([loading] if loading else [])
        if not found and self.crashes == _CRASHES_BEFORE_SEARCH:
            self.notify("the agent crashed or hung twice: searching for the model that causes it")
            found = self._try_alone(model for model in dict.fromkeys(models) if model != loading)
        if not found and self.crashes > _CRASHES_BEFORE_SEARCH:
            batch = list(dict.fromkeys(models))
            reason = (
                f"the agent crashed or hung {self.crashes} times with {', '.join(batch)} loaded together, "
                "though with none of them alone"
            )
            found = dict.fromkeys(batch[1:], reason)
        if found:
            self.crashes = 0
        return found

    def _try_alone(self, models: Iterable[str]) -> dict[str, str]:
        reasons = {model: _failure_alone(self.connection, self.files[model]) for model in models}
        return {model: reason for model, reason in reasons.items() if reason}


def _failure_alone(connection: DeviceConnection, file: ModelFile) -> str:
    starts = connection.device.agent_starts
    for _ in range(_ATTEMPTS):
        connection.hello()
        try:
            loaded = connection.load(file)
            connection.client.silence_limit_s = ALONE_SILENCE_S
            result = connection.client.run([loaded.handle], [[0]] * _RUNS)
            connection.slowest_s = max(connection.slowest_s, float(result.samples.max()) / 1e9)
            connection.client.unload(loaded.handle)
        except AgentError as error:
            return refusal_reason(error)
        except AgentLostError:
            connection.drop()
            connection.hello()
            continue
        return ""
    crashes = connection.device.agent_starts - starts
    return (
        f"the agent crashed or hung {crashes} times out of {_ATTEMPTS} that it ran alone"
        if crashes == _ATTEMPTS
        else ""
    )

"""A device that is in no state to be measured: wait while that may pass, give up where it can't."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from luts.format.errors import InvalidArtifactError
from orchestrator.devices.common.device import Device
from orchestrator.journal.conditions import HOT_HEADROOM
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.wire.client import AgentClient, ModelFile, RunResult
from orchestrator.wire.errors import AgentError, AgentLostError, DeviceError
from orchestrator.wire.messages import Battery, DeviceState, HelloReply, LoadReply


class DeviceConnection:
    """Keeps one greeted client to `device`; `drop` after a loss, the next use connects again."""

    def __init__(self, device: Device, runtime: str, options: Mapping[str, bool | int | str]):
        self.device, self.runtime, self.options = device, runtime, dict(options)
        self._client: AgentClient | None = None

    @property
    def client(self) -> AgentClient:
        """The connection, made now if there is none. DeviceError where the device does not answer."""
        if self._client is None:
            self._client = self.device.connect()
            with contextlib.suppress(DeviceError):  # what is wrong then, the next request says
                if self._client.state().foreground is False:
                    self.device.bring_to_front()
        return self._client

    def hello(self) -> HelloReply:
        """Who answers."""
        return self.client.hello()

    def load(self, file: ModelFile, waited: Callable[[float], None] = lambda _: None) -> LoadReply:
        """A fresh load of a model, sent first where the device does not hold it; `waited` as `AgentClient.load`."""
        self.client.ensure(file.path, file.sha256)
        return self.client.load(file.sha256, file.runtime or self.runtime, self.options, waited)

    def drop(self) -> None:
        """Forget the connection."""
        if self._client is not None:
            self._client.close()
        self._client = None


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


def cool_down(link: DeviceConnection, limit_s: float, tell: Callable[[str], None]) -> None:
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
    link: DeviceConnection,
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


def _shown(link: DeviceConnection) -> bool:
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


_TRIES = 2
_RUNS = 3
_DEATHS_BEFORE_SEARCH = 2
_REFUSALS = ("bad_model", "out_of_memory", "run_failed")


class ReferenceFailedError(InvalidArtifactError):
    """The device can't run the reference, to which all is measured; `reason` says why."""

    def __init__(self, device: str, reason: str):
        super().__init__(
            f"the reference model can't be measured on {device}: {reason}; "
            "choose another runtime, backend or precision"
        )
        self.reason = reason


def refusal(error: AgentError) -> str:
    """Why the runtime can't take a model; the error itself is raised where the model is not at fault."""
    if error.code not in _REFUSALS:
        raise error
    return f"{error.code}: {error}"


class DeadlyModels:
    """Finds which models take the agent down, from one batch's deaths."""

    def __init__(self, link: DeviceConnection, files: Mapping[str, ModelFile], tell: Callable[[str], None]):
        self._link, self._files, self._tell = link, files, tell
        self._deaths = 0

    def after_death(self, models: Sequence[str], in_hand: str) -> dict[str, str]:
        """Models to leave out now, with the reason; none where it is to be tried again.

        The model that was being loaded is suspected first, each by itself at the second death that explains
        nothing, and at the third all of the batch but its reference: they do it beside each other.

        Args:
            models: Of the batch, the reference first.
            in_hand: The one that was being loaded; empty where none was.

        Raises:
            AgentLostError: the device went away and stayed away.
        """
        self._deaths += 1
        if in_hand:
            self._tell(f"the agent died or hung while loading {in_hand}: trying that alone")
        found = self._alone([in_hand] if in_hand else [])
        if not found and self._deaths == _DEATHS_BEFORE_SEARCH:
            self._tell("the agent died or hung twice: looking for the model that does it")
            found = self._alone(model for model in dict.fromkeys(models) if model != in_hand)
        if not found and self._deaths > _DEATHS_BEFORE_SEARCH:
            company = list(dict.fromkeys(models))
            names = ", ".join(company)
            reason = (
                f"the agent died or hung {self._deaths} times beside {names}, though with none of them alone"
            )
            found = dict.fromkeys(company[1:], reason)
        if found:
            self._deaths = 0
        return found

    def _alone(self, models: Iterable[str]) -> dict[str, str]:
        reasons = {model: _fails(self._link, self._files[model]) for model in models}
        return {model: reason for model, reason in reasons.items() if reason}


def _fails(link: DeviceConnection, file: ModelFile) -> str:
    starts = link.device.agent_starts
    for _ in range(_TRIES):
        link.hello()
        try:
            loaded = link.load(file)
            link.client.run([loaded.handle], [[0]] * _RUNS)
            link.client.unload(loaded.handle)
        except AgentError as error:
            return refusal(error)
        except AgentLostError:
            link.drop()
            link.hello()
            continue
        return ""
    died = link.device.agent_starts - starts
    return f"the agent died or hung {died} times out of {_TRIES} that it ran alone" if died == _TRIES else ""

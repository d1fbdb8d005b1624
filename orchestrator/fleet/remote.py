"""A unit on another host, or in another process: device and client behind a Ray actor."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from luts.format.errors import BlocktimeError
from luts.format.files import Closeable
from luts.format.processes import Cluster
from orchestrator.devices.common.device import Access, Device, ignore_message, refuse_question
from orchestrator.devices.lock import lock_device
from orchestrator.fleet.units import DeviceClass, FleetUnit, OpenUnit, open_local
from orchestrator.wire.client import AgentClient, file_digest
from orchestrator.wire.errors import AgentLostError, DeviceError


@dataclass(frozen=True)
class UnitInfo:
    """What the fleet learns about a unit."""

    serial: str
    name: str
    described: str
    fixed_performance: bool
    allow: tuple[str, ...]


class UnitActor:
    """Owns a unit on its host; two calls may run at once, of which `close` ends the other."""

    def __init__(self, device_class: DeviceClass, access: Access):
        """Prepare to open a unit of the class."""
        self._class, self._access = device_class, access
        self._device: Device | None = None
        self._client: AgentClient | None = None
        self._held = ExitStack()
        self._models = tempfile.TemporaryDirectory(prefix="blocktime-models-")

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method by its name without underscore; an expected error is returned as a value."""
        try:
            return getattr(self, f"_{method}")(*arguments)
        except BlocktimeError as error:
            return error

    def close(self) -> None:
        """Release everything; a call that is running fails."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        with suppress(OSError):
            self._held.close()
        device, self._device = self._device, None
        if device is not None:
            with suppress(BlocktimeError, OSError):
                device.__exit__(None, None, None)
        self._models.cleanup()

    def _open(self, taken: Collection[str]) -> UnitInfo:
        serial, self._device = open_local(self._class, self._access, taken)
        device = self._device
        return UnitInfo(serial, device.name, device.describe(), device.fixed_performance, device.allow)

    def _hold(self) -> None:
        self._held.enter_context(lock_device(self._opened))

    def _let_go(self) -> None:
        self._held.close()

    def _connect(self) -> int:
        self._client = self._opened.connect()
        return self._opened.agent_starts

    def _call_device(self, method: str) -> Any:
        return getattr(self._opened, method)()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()

    def _has(self, path: str, sha256: str) -> bool:
        """Return whether the model is here, at its own path on a shared disk or where `_take` stored it."""
        for place in (Path(path), self._place(sha256)):
            with suppress(BlocktimeError, OSError):
                if place.is_file() and file_digest(place) == sha256:
                    self._client_now.ensure(place, sha256)
                    return True
        return False

    def _take(self, sha256: str, content: bytes) -> None:
        self._place(sha256).write_bytes(content)
        self._client_now.ensure(self._place(sha256), sha256)

    def _call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._client_now, method)(*arguments)

    def _place(self, sha256: str) -> Path:
        return Path(self._models.name) / sha256

    @property
    def _opened(self) -> Device:
        if self._device is None:
            raise DeviceError("the unit was closed; it is opened again", code="unit_closed")
        return self._device

    @property
    def _client_now(self) -> AgentClient:
        if self._client is None:
            raise AgentLostError("the unit was closed; it is opened again", code="unit_closed")
        return self._client


JOIN_S = 180.0
"""Longest start of an actor: a host imports for seconds, on a busy machine for a minute."""

CLOSE_S = 20.0
"""Time for an actor to release its phone; it is killed then."""

AWAY_S = 20.0
"""How long a lost phone keeps its batch: after a touched cable it is back by then; else another unit
continues.
"""

Ask = Callable[..., Any]


def remote_openers(cluster: Cluster, device_class: DeviceClass, access: Access) -> list[OpenUnit]:
    """Return one opener for each unit of the class; each starts an actor on a host that offers the class."""
    quiet = replace(access, say=ignore_message, ask=refuse_question, reconnect_timeout_s=AWAY_S)

    def open_unit(taken: Collection[str]) -> FleetUnit:
        return RemoteUnit(cluster, device_class, quiet, taken)

    return [open_unit] * device_class.units


class RemoteUnit:
    """A unit owned by an actor."""

    def __init__(
        self,
        cluster: Cluster,
        device_class: DeviceClass,
        access: Access,
        taken: Collection[str],
    ):
        """Start the actor, which opens a device.

        Raises:
            DeviceError: No host offers the class, or none has such a device left.
        """
        self._ray = cluster.ray
        if not self._ray.cluster_resources().get(device_class.name):
            raise DeviceError(
                f"no host of the cluster offers {device_class.name}; on one that has it run "
                f"`ray start --address=... --resources='{{\"{device_class.name}\": 1}}'`",
                code="no_device",
            )
        actor = self._ray.remote(num_cpus=0, max_concurrency=2, resources={device_class.name: 1})(UnitActor)
        self._actor = actor.remote(device_class, access)
        try:
            opened = self._ask("open", set(taken), wait_s=JOIN_S)
        except BaseException:
            self.close()
            raise
        self.serial: str = opened.serial
        self.device: Device = RemoteDevice(opened, self._ask)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Reserve the unit on its host."""
        self._ask("hold")
        try:
            yield
        finally:
            with suppress(DeviceError):
                self._ask("let_go")

    def close(self) -> None:
        """Let the actor release the unit, and kill it."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.close.remote(), timeout=CLOSE_S)
        self._ray.kill(self._actor)

    def _ask(self, method: str, *arguments: Any, wait_s: float | None = None) -> Any:
        """Return what the actor answers; raises AgentLostError if it or its host has died."""
        try:
            answer = self._ray.get(self._actor.ask.remote(method, *arguments), timeout=wait_s)
        except self._ray.exceptions.GetTimeoutError:
            raise DeviceError(
                f"its host did not start it within {wait_s:.0f} s; see `ray status`", code="host_timeout"
            ) from None
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise AgentLostError(
                f"its host failed with {type(cause).__name__}: {cause}; report it", code="host_failed"
            ) from None
        except self._ray.exceptions.RayError as error:
            raise AgentLostError(f"its host was lost ({type(error).__name__})", code="host_lost") from None
        if isinstance(answer, BlocktimeError):
            raise answer
        return answer


class RemoteDevice(Device):
    """The actor's device; implements Device, but is opened and closed by the actor."""

    identity = ""

    def __init__(self, opened: UnitInfo, ask: Ask):
        """Describe the unit; `ask` calls its actor."""
        self.name, self.allow = opened.name, opened.allow
        self.fixed_performance = opened.fixed_performance
        self.agent_starts = 0
        self._described, self._ask = opened.described, ask

    def describe(self) -> str:
        """Return the device's description."""
        return self._described

    def connect(self) -> AgentClient:
        """Connect the actor's client."""
        self.agent_starts = self._ask("connect")
        return cast(AgentClient, RemoteClient(self._ask))

    def bring_to_front(self) -> None:
        """Bring the agent's app to the front."""
        self._ask("call_device", "bring_to_front")

    def read_log(self) -> str:
        """Return the end of the agent's log."""
        return str(self._ask("call_device", "read_log"))

    def __exit__(self, *_: object) -> None:
        """Do nothing: the actor closes the device."""


class RemoteClient(Closeable):
    """The actor's client; timing loops stay on the device.

    Methods that are not here are those of AgentClient, called by the actor. Callbacks are not passed on: an actor
    sends nothing before its answer.
    """

    def __init__(self, ask: Ask):
        """Call the actor by `ask`."""
        self._ask = ask

    def __getattr__(self, method: str) -> Ask:
        """Return a function that calls the method of the actor's client."""
        return lambda *arguments: self._ask("call", method, *(a for a in arguments if not callable(a)))

    def ensure(self, path: Path, sha256: str | None = None) -> None:
        """Send the model to the agent; it is copied to the unit's host only if that lacks it."""
        digest = sha256 or file_digest(path)
        if not self._ask("has", str(path), digest):
            self._ask("take", digest, path.read_bytes())

    def close(self) -> None:
        """Disconnect the actor's client."""
        with suppress(DeviceError):
            self._ask("disconnect")

"""A unit on another host, or in another process: the device and client that the engine uses, by way of an actor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from luts.format.cluster import Cluster
from orchestrator.devices.common.device import Access, Device, no_one_to_ask, no_one_to_tell
from orchestrator.fleet.actor import Opened, Refused, UnitActor
from orchestrator.fleet.classes import DeviceClass
from orchestrator.fleet.stf import Farm
from orchestrator.fleet.unit import OpenUnit, Unit
from orchestrator.wire.client import AgentClient, RunResult
from orchestrator.wire.device_state import DeviceState
from orchestrator.wire.errors import AgentLost, DeviceError
from orchestrator.wire.model_file import file_digest
from orchestrator.wire.replies import HelloReply, LoadReply, Placement

JOIN_S = 180.0
"""For an actor to start: a host imports for seconds, on a busy machine for a minute."""

CLOSE_S = 20.0
"""For an actor to give its phone back in order; it is killed then."""

AWAY_S = 20.0
"""For which a lost phone keeps its batch: a cable that was touched is back by then; else another unit goes on."""

Ask = Callable[..., Any]


def remote_openers(
    cluster: Cluster, device_class: DeviceClass, access: Access, farm: Farm | None = None
) -> list[OpenUnit]:
    """One opener for each unit of the class; its actor is put where a host offers the class as a resource."""
    quiet = replace(access, say=no_one_to_tell, ask=no_one_to_ask, away_s=AWAY_S)

    def open_unit(taken: Collection[str]) -> Unit:
        return RemoteUnit(cluster, device_class, quiet, farm, taken)

    return [open_unit] * device_class.units


class RemoteUnit:
    """A unit in the hands of an actor of its own."""

    def __init__(
        self,
        cluster: Cluster,
        device_class: DeviceClass,
        access: Access,
        farm: Farm | None,
        taken: Collection[str],
    ):
        """Start the actor and have it take a device.

        Raises:
            DeviceError: no host offers the class, or none of them has such a device left.
        """
        self._ray = cluster.ray
        if not self._ray.cluster_resources().get(device_class.resource):
            raise DeviceError(
                f"no host of the cluster offers {device_class.name}; on one that has it run "
                f"`ray start --address=... --resources='{{\"{device_class.resource}\": 1}}'`"
            )
        actor = self._ray.remote(num_cpus=0, max_concurrency=2, resources={device_class.resource: 1})(
            UnitActor
        )
        self._actor = actor.remote(device_class, access, farm)
        try:
            opened = self._ask("open", set(taken), wait_s=JOIN_S)
        except BaseException:
            self.close()
            raise
        self.serial: str = opened.serial
        self.device: Device = RemoteDevice(opened, self._ask)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The lock lies on the unit's host."""
        self._ask("hold")
        try:
            yield
        finally:
            with suppress(DeviceError):
                self._ask("let_go")

    def close(self) -> None:
        """In order where the actor still listens."""
        with suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.close.remote(), timeout=CLOSE_S)
        self._ray.kill(self._actor)

    def _ask(self, method: str, *arguments: Any, wait_s: float | None = None) -> Any:
        """What the actor answers. AgentLost where it has died, or its host has."""
        try:
            answer = self._ray.get(self._actor.ask.remote(method, *arguments), timeout=wait_s)
        except self._ray.exceptions.GetTimeoutError:
            raise DeviceError(f"its host did not start it within {wait_s:.0f} s; see `ray status`") from None
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise AgentLost(f"its host failed with {type(cause).__name__}: {cause}; report it") from None
        except self._ray.exceptions.RayError as error:
            raise AgentLost(f"its host was lost ({type(error).__name__})") from None
        if isinstance(answer, Refused):
            raise answer.error
        return answer


class RemoteDevice:
    """The actor's device; implements Device, but is entered and left by the actor."""

    identity = ""

    def __init__(self, opened: Opened, ask: Ask):
        self.name, self.allow = opened.name, opened.allow
        self.fixed_performance = opened.fixed_performance
        self.agent_starts = 0
        self._described, self._ask = opened.described, ask

    def describe(self) -> str:
        return self._described

    def connect(self) -> AgentClient:
        self.agent_starts = self._ask("connect")
        return cast(AgentClient, RemoteClient(self._ask))

    def bring_to_front(self) -> None:
        self._ask("bring_to_front")

    def read_log(self) -> str:
        return str(self._ask("read_log"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class RemoteClient:
    """What measuring uses of an AgentClient, in the actor's hands. Timing loops stay on the device."""

    def __init__(self, ask: Ask):
        self._ask = ask
        self._hello: HelloReply | None = None

    def hello(self) -> HelloReply:
        if self._hello is None:
            self._hello = self._ask("call", "hello")
        return self._hello

    def state(self) -> DeviceState:
        return cast(DeviceState, self._ask("call", "state"))

    def ensure(self, path: Path, sha256: str | None = None) -> None:
        """The model travels to the unit's host only where that does not have it."""
        digest = sha256 or file_digest(path)
        if not self._ask("has", str(path), digest):
            self._ask("take", digest, path.read_bytes())

    def load(
        self,
        sha256: str,
        runtime: str,
        options: Mapping[str, bool | int | str] | None = None,
        waited: Callable[[float], None] = lambda _: None,  # noqa: ARG002
    ) -> LoadReply:
        """`waited` is not told: nothing comes back from an actor before its answer."""
        return cast(LoadReply, self._ask("call", "load", sha256, runtime, options))

    def placement(
        self,
        handle: int,
        waited: Callable[[float], None] = lambda _: None,  # noqa: ARG002
    ) -> Placement | None:
        return cast("Placement | None", self._ask("call", "placement", handle))

    def unload(self, handle: int) -> None:
        self._ask("call", "unload", handle)

    def run(self, *schedule: Any) -> RunResult:
        """Whatever `AgentClient.run` takes."""
        return cast(RunResult, self._ask("call", "run", *schedule))

    def close(self) -> None:
        with suppress(DeviceError):
            self._ask("disconnect")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

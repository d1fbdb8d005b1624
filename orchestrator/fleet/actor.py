"""What runs beside a phone: one Ray actor, which drives the device and its agent as it is told."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from orchestrator.devices.common.device import Access
from orchestrator.devices.lock import BusyError
from orchestrator.fleet.classes import DeviceClass
from orchestrator.fleet.local import LocalUnit, open_local
from orchestrator.fleet.stf import Farm, open_leased
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import AgentError, AgentLost, DeviceError
from orchestrator.wire.model_file import file_digest

_CLASSES = {
    cls.__name__: cls for cls in (BusyError, AgentLost, DeviceError, UsageError, InvalidArtifactError)
}


@dataclass(frozen=True)
class Refused:
    """An error on its way to the fleet: its class's name, its text, and PROTOCOL.md's code of an agent's."""

    kind: str
    text: str
    code: str = ""

    @classmethod
    def of(cls, error: BlocktimeError) -> Refused:
        """The nearest class that the fleet tells apart."""
        kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in _CLASSES), "")
        return cls(kind, str(error), error.code if isinstance(error, AgentError) else "")

    @property
    def error(self) -> BlocktimeError:
        """What to raise."""
        if self.code:
            return AgentError(self.code, self.text)
        return _CLASSES.get(self.kind, BlocktimeError)(self.text)


@dataclass(frozen=True)
class Opened:
    """What the fleet learns of a unit."""

    serial: str
    name: str
    described: str
    fixed_performance: bool
    allow: tuple[str, ...]


class UnitActor:
    """Every public method is one call of the fleet; two may run at once, of which `close` ends the other."""

    def __init__(self, device_class: DeviceClass, access: Access, farm: Farm | None):
        self._class, self._access, self._farm = device_class, access, farm
        self._unit: LocalUnit | None = None
        self._client: AgentClient | None = None
        self._held = ExitStack()
        self._models = tempfile.TemporaryDirectory(prefix="blocktime-models-")

    def ask(self, method: str, *arguments: Any) -> Any:
        """A call of a method below; an expected error comes back as a value, which pickles whole."""
        try:
            return getattr(self, f"_{method}")(*arguments)
        except BlocktimeError as error:
            return Refused.of(error)

    def close(self) -> None:
        """Give everything back; the call that is going on fails."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        with suppress(OSError):
            self._held.close()
        unit, self._unit = self._unit, None
        if unit is not None:
            unit.close()
        self._models.cleanup()

    def _open(self, taken: Collection[str]) -> Opened:
        if self._farm is not None:
            self._unit = open_leased(self._farm, self._class, self._access, taken)
        else:
            self._unit = open_local(self._class, self._access, taken)
        device = self._unit.device
        return Opened(
            self._unit.serial, device.name, device.describe(), device.fixed_performance, device.allow
        )

    def _hold(self) -> None:
        self._held.enter_context(self._opened.held())

    def _let_go(self) -> None:
        self._held.close()

    def _connect(self) -> int:
        self._client = self._opened.device.connect()
        return self._opened.device.agent_starts

    def _bring_to_front(self) -> None:
        self._opened.device.bring_to_front()

    def _read_log(self) -> str:
        return self._opened.device.read_log()

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()

    def _has(self, path: str, sha256: str) -> bool:
        """Whether the model lies here, at its own path on a shared disk or where `take` put it."""
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
    def _opened(self) -> LocalUnit:
        if self._unit is None:
            raise DeviceError("the unit was closed; it is opened again")
        return self._unit

    @property
    def _client_now(self) -> AgentClient:
        if self._client is None:
            raise AgentLost("the unit was closed; it is opened again")
        return self._client

"""A connection to a device that comes back after it was lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from orchestrator.devices.common.device import Device
from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.model_file import ModelFile
from orchestrator.wire.replies import HelloReply, LoadReply


class Link:
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

"""Phones of a DeviceFarmer STF: leased by its REST API, reached by adb at the address that it gives.

The API is that of doc/API.md of DeviceFarmer/stf: a Bearer token, `/api/v1/devices`, and below
`/api/v1/user/devices` what the token's user controls.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from luts.format.errors import BlocktimeError, UsageError, few, first_problem
from orchestrator.devices.android.phones import is_address, slug
from orchestrator.devices.common.device import Access
from orchestrator.devices.common.registry import phone_of
from orchestrator.devices.discover import resolve
from orchestrator.fleet.units import DeviceClass, LocalUnit
from orchestrator.wire.errors import DeviceError

TOKEN_VARIABLE = "STF_TOKEN"

TIMEOUT_S = 30.0
"""Of a request: STF itself gives a device 5 s to answer."""

MAX_ANSWER_BYTES = 16 << 20

_FIELDS = "serial,model,present,ready,using,owner"


@dataclass(frozen=True)
class Farm:
    """An STF: its address, an access token (Settings, Keys), and for how long it keeps an idle device for us."""

    url: str
    token: str = field(repr=False)
    idle_s: float = 900.0

    @classmethod
    def of(cls, url: str, idle_s: float) -> Farm:
        """With the token of $STF_TOKEN. UsageError where there is none, or the address is none."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UsageError(
                f"--stf {url[:80]!r}: expected the address of an STF, such as https://stf.example.org"
            )
        token = os.environ.get(TOKEN_VARIABLE, "")
        if not token:
            raise UsageError(
                f"--stf needs an access token: make one in STF's Settings, Keys, and set {TOKEN_VARIABLE}"
            )
        return cls(url.rstrip("/"), token, idle_s)

    def devices(self) -> list[FarmDevice]:
        """All that the token's user may see."""
        query = urllib.parse.urlencode({"fields": _FIELDS})
        answer = self._ask("GET", f"devices?{query}")
        try:
            return [FarmDevice.model_validate(device) for device in answer.get("devices", [])]
        except ValidationError as error:
            raise DeviceError(
                f"{self.url} lists a device that STF's API does not have: {first_problem(error)}"
            ) from None

    def lease(self, serial: str) -> str:
        """Take a device; its address for adb.

        Raises:
            DeviceError: another has it, it does not answer, or it gives no address.
        """
        self._ask("POST", "user/devices", {"serial": serial, "timeout": int(1000 * self.idle_s)})
        try:
            address = self._ask("POST", f"user/devices/{_quoted(serial)}/remoteConnect").get(
                "remoteConnectUrl"
            )
            if not isinstance(address, str) or not is_address(address):
                raise DeviceError(f"{self.url} gave no address for {serial}; look at it in STF")
            return address
        except BaseException:
            self.release(serial)
            raise

    def release(self, serial: str) -> None:
        """Give a device back; nothing where it is gone already."""
        for path in (f"user/devices/{_quoted(serial)}/remoteConnect", f"user/devices/{_quoted(serial)}"):
            with suppress(DeviceError):
                self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                answer = json.loads(reply.read(MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            raise DeviceError(
                f"{self.url} answers {error.code} to {method} {path.split('?')[0]}: {_why(error)}"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise DeviceError(f"no STF answers at {self.url} ({reason}); check --stf") from None
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise DeviceError(f"{self.url} refuses {method} {path.split('?')[0]}: {str(answer)[:200]}")
        return answer


class FarmDevice(BaseModel):
    """What is looked at of a device in STF's list."""

    model_config = ConfigDict(frozen=True)

    serial: Annotated[str, Field(min_length=1, max_length=256)]
    model: str | None = None
    present: bool = False
    ready: bool = False
    using: bool = False
    owner: object = None

    @property
    def name(self) -> str:
        """As --devices calls it."""
        known = phone_of(self.model or "")
        return known.name if known else slug(self.model or "")

    @property
    def free(self) -> bool:
        """As STF's own `isAddable` has it: there, ready, and nobody's."""
        return self.present and self.ready and not self.using and not self.owner


class LeasedUnit(LocalUnit):
    """A phone of a farm, given back at the end."""

    def __init__(self, farm: Farm, serial: str, address: str, access: Access):
        self._farm = farm
        super().__init__(serial, resolve(address, access))

    def close(self) -> None:
        """End what was started, then the lease."""
        super().close()
        self._farm.release(self.serial)


def open_leased(
    farm: Farm, device_class: DeviceClass, access: Access, taken: Collection[str] = ()
) -> LeasedUnit:
    """A free phone of the class, leased; of the class's members where it names some.

    Raises:
        DeviceError: no phone of the class is free, or the farm does not answer.
    """
    there = farm.devices()
    wanted = [
        device
        for device in there
        if (
            device.serial in device_class.members
            if device_class.members
            else device.name == device_class.name
        )
    ]
    failures: list[BlocktimeError] = []
    for device in wanted:
        if not device.free or device.serial in taken:
            continue
        try:
            address = farm.lease(device.serial)
        except DeviceError as error:  # somebody was faster
            failures.append(error)
            continue
        try:
            return LeasedUnit(farm, device.serial, address, access)
        except BlocktimeError as error:
            farm.release(device.serial)
            failures.append(error)
    if failures:
        raise DeviceError(str(failures[0]))
    if not wanted:
        names = few(sorted({device.name for device in there if device.name})) or "no device"
        raise DeviceError(f"{farm.url} has no {device_class.name}; it has {names}")
    raise DeviceError(
        f"{farm.url} has no free {device_class.name}: {len(wanted)} there, all away or in use; "
        "wait, or ask for fewer"
    )


def _quoted(serial: str) -> str:
    return urllib.parse.quote(serial, safe="")


def _why(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(4096))["description"])[:200]
    except (OSError, ValueError, KeyError, TypeError):
        return error.reason or "no reason"

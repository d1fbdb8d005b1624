"""How a direct connection begins: versions are agreed, and the phone checks this computer's key."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.devices.android import packets
from orchestrator.devices.android.errors import LinkLost, PhoneNotReady
from orchestrator.devices.android.keys import AdbKey
from orchestrator.devices.android.packets import PacketError
from orchestrator.devices.android.pipe import Pipe

ANSWER_TIMEOUT_S = 10.0

# How long the user has to accept the dialog on the phone.
ACCEPT_TIMEOUT_S = 60.0

_BANNER = b"host::features=shell_v2,cmd"
_MIN_PAYLOAD_BYTES = 256


@dataclass(frozen=True)
class Welcome:
    """What the phone said of itself: ro.product.model, adb features, bytes that it takes in a packet."""

    model: str
    features: frozenset[str]
    max_payload_bytes: int


def greet(pipe: Pipe, key: AdbKey, phone: str, ask_user: Callable[[], None] | None) -> Welcome:
    """Agrees on a version and proves this computer's key.

    Where the phone does not know the key, `ask_user` is called, the phone shows its dialog and has a minute; with
    None it is not asked, and PhoneNotReady (`unauthorized`) is raised at once. LinkLost where it does not answer.
    """
    try:
        pipe.send(packets.CNXN, packets.VERSION, packets.MAX_PAYLOAD_BYTES, _BANNER)
        return _answer(pipe, key, phone, ask_user)
    except (OSError, PacketError) as error:
        raise LinkLost(
            f"{phone} does not speak adb with this computer: {error}; unplug it and plug it in again"
        ) from None


def _answer(pipe: Pipe, key: AdbKey, phone: str, ask_user: Callable[[], None] | None) -> Welcome:
    deadline_s = time.monotonic() + ANSWER_TIMEOUT_S
    signed = asked = False
    while (left_s := deadline_s - time.monotonic()) > 0:
        packet = pipe.poll_packet(left_s)
        if packet is None:
            continue
        header, payload = packet
        if header.command == packets.CNXN:
            pipe.agree(header.arg0)
            return _welcome(header.arg1, payload)
        if header.command == packets.STLS:
            raise PhoneNotReady(
                f"{phone} wants encrypted wireless debugging, which needs an adb server: run `adb pair` and "
                "`adb connect` first, or use the cable",
                "unauthorized",
            )
        if header.command != packets.AUTH or header.arg0 != packets.AUTH_TOKEN or asked:
            continue  # what is left of an earlier connection, or a phone that asks again while it asks its user
        if not signed:
            pipe.send(packets.AUTH, packets.AUTH_SIGNATURE, 0, key.sign(payload))
            signed = True
        elif ask_user is None:
            raise _unauthorized(phone)
        else:
            ask_user()
            pipe.send(packets.AUTH, packets.AUTH_PUBLIC_KEY, 0, key.public_text() + b"\0")
            asked = True
            deadline_s = time.monotonic() + ACCEPT_TIMEOUT_S
    if asked:
        raise _unauthorized(phone)
    raise TimeoutError(f"no answer within {ANSWER_TIMEOUT_S:.0f} s")


def _unauthorized(phone: str) -> PhoneNotReady:
    return PhoneNotReady(
        f"{phone} does not let this computer in: unlock it, accept its USB debugging dialog and run the command "
        "again",
        "unauthorized",
    )


def _welcome(max_payload_bytes: int, banner: bytes) -> Welcome:
    """The banner is `device::ro.product.name=…;ro.product.model=…;features=a,b`, with a NUL in older phones."""
    if max_payload_bytes < _MIN_PAYLOAD_BYTES:
        raise PacketError(f"it takes packets of {max_payload_bytes} bytes only")
    text = banner.rstrip(b"\0").decode(errors="replace").split("::", 1)[-1]
    fields = dict(field.split("=", 1) for field in text.split(";") if "=" in field)
    return Welcome(
        model=fields.get("ro.product.model", ""),
        features=frozenset(fields.get("features", "").split(",")),
        max_payload_bytes=min(max_payload_bytes, packets.MAX_PAYLOAD_BYTES),
    )

"""The person who holds the phone: is told and asked things by `bench`, and has trusted the computer or not."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.devices.common.device import Access
from orchestrator.devices.common.registry import known_phones
from orchestrator.devices.iphone.phones import open_driver
from tests.support.usbmux.fake_phone import FakePhone

IPHONE_13 = known_phones()["iphone13"]


class Owner:
    """Listens to what `bench` says, and answers with what the phone shows or with the `answers` set."""

    def __init__(self, phone: FakePhone) -> None:
        self.told: list[str] = []
        self.asked: list[str] = []
        self.answers: list[Callable[[], str]] = []
        self._phone = phone

    def ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self.answers.pop(0)() if self.answers else self._phone.tap_icon()

    @property
    def access(self) -> Access:
        return Access(say=self.told.append, ask=self.ask)


def trust_now(phone: FakePhone) -> None:
    """The phone has trusted this computer before."""
    phone.trusts_after = 0
    open_driver().pair(phone.udid, 10)

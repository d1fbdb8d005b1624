"""What the rest of the program needs of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from orchestrator.wire.client import AgentClient
from orchestrator.wire.errors import DeviceError


def no_one_to_tell(message: str) -> None:
    """The `say` of a program that has no one to tell."""


def no_one_to_ask(prompt: str) -> str:
    """The `ask` of a command that nobody sits at: DeviceError with what would have been asked."""
    raise DeviceError(f"nobody is there to be asked: {prompt}")


@dataclass(frozen=True)
class Access:
    """How a device is driven.

    Attributes:
        agent: Language of the host's agent; phones have their own.
        allow: Reasons not to measure that the agent is told to ignore (`caveats` of PROTOCOL.md).
        fixed_performance: An Android phone is put into its fixed performance mode for as long as it is used.
        app: The benchmark app's file (.apk, .ipa), which a phone then gets; None to take what is installed.
        say: Told what is waited for.
        ask: Asked for what only a person can see, a pairing code; DeviceError where nobody answers.
        away_s: How long a phone that was lost is waited for; its kind's default, minutes.
    """

    agent: str = "python"
    allow: tuple[str, ...] = ()
    app: Path | None = None
    say: Callable[[str], None] = no_one_to_tell
    ask: Callable[[str], str] = no_one_to_ask
    fixed_performance: bool = False
    away_s: float | None = None


class Device(Protocol):
    """A device that can be measured. Used as a context manager, which ends whatever `connect` started.

    `name` is the folder name in luts/data. `identity` tells one piece of hardware from all others, however it is
    reached; empty for a simulated one, of which there are as many as are asked for. `agent_starts` counts how often
    `connect` had to start an agent: when it stands still over a loss, the cable was at fault; when it grows, the
    agent had died. `fixed_performance`: it is in that mode while it is used. `allow`: reasons not
    to measure that its agent is told to ignore.
    """

    name: str
    identity: str
    agent_starts: int
    fixed_performance: bool
    allow: tuple[str, ...]

    def describe(self) -> str:
        """One line for people: what and where the device is."""

    def connect(self) -> AgentClient:
        """A greeted connection; starts or restarts the agent where needed. DeviceError where that fails."""

    def bring_to_front(self) -> None:
        """Switch the screen on and show the app, for what runs unseen is slower; nothing where there is no screen.

        DeviceError where that can't be done from here.
        """

    def read_log(self) -> str:
        """What the agent has logged lately; empty where that can't be read from here."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

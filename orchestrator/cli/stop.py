"""Ctrl-C and SIGTERM: both end `bench` in order, with one line, as soon as it has begun and before.

Imports next to nothing, since it is there before anything else.
"""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import NoReturn

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

_received: list[signal.Signals] = []


def before_it_begins() -> None:
    """End at once, with a line: nothing is begun yet, and libraries that are just imported would garble an
    exception. What whoever started this process ignores stays ignored."""
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_at_once)


def from_now_on() -> None:
    """Ctrl-C is a KeyboardInterrupt again, and SIGTERM does what Ctrl-C does just then."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _as_ctrl_c)):
        if signal.getsignal(number) is _end_at_once:
            signal.signal(number, handler)


def last_words() -> tuple[str, int]:
    """What to say of a stop and the exit code: 130 after Ctrl-C, 143 after SIGTERM. No further one tears them."""
    number = _received[-1] if _received else signal.SIGINT
    for every in _WORDS:
        signal.signal(every, signal.SIG_IGN)
    return f"{_WORDS[number]}; what is done is kept, run the same command to go on", exit_code()


def exit_code() -> int:
    """As shells have it: 128 and the signal's number."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    word = _WORDS[signal.Signals(number)]
    os.write(2, f"bench: {word} before it began; run the same command again\n".encode())
    os._exit(128 + number)


def _as_ctrl_c(_number: int, frame: FrameType | None) -> None:
    _received.append(signal.SIGTERM)
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)

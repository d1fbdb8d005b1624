"""The script `bench`, and what Ctrl-C and SIGTERM do to it.

Imports next to nothing: the signal handlers are set before anything else is imported, and worker processes import
this module too.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_VERBS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells expect it; typer turns KeyboardInterrupt into it."""

_received: list[signal.Signals] = []


def main() -> None:
    """Run the command line."""
    for number in _VERBS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # what the caller ignores stays ignored
            signal.signal(number, _end_at_once)
    try:
        from orchestrator.cli.main import run

        for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, _as_ctrl_c)):
            if signal.getsignal(number) is _end_at_once:
                signal.signal(number, handler)
        run()
    except SystemExit as end:
        if end.code != INTERRUPTED:
            raise
        message, code = stop_message()
        print(f"bench: {message}", file=sys.stderr)
        sys.exit(code)
    except KeyboardInterrupt:  # a second Ctrl-C
        sys.exit(_exit_code())


def stop_message() -> tuple[str, int]:
    """Return the message of an interrupted command and its exit code, and ignore further signals.

    The exit code is 128 and the signal's number, as in shells: 130 after Ctrl-C, 143 after SIGTERM.
    """
    number = _received[-1] if _received else signal.SIGINT
    for every in _VERBS:
        signal.signal(every, signal.SIG_IGN)
    return f"{_VERBS[number]}; results so far are saved, run the same command to resume", _exit_code()


def _exit_code() -> int:
    return 128 + (_received[-1] if _received else signal.SIGINT)


def _end_at_once(number: int, _frame: FrameType | None) -> NoReturn:
    """End during start-up, when an exception would print half-imported libraries."""
    verb = _VERBS[signal.Signals(number)]
    os.write(2, f"bench: {verb} before it began; run the same command again\n".encode())
    os._exit(128 + number)


def _as_ctrl_c(_number: int, frame: FrameType | None) -> None:
    _received.append(signal.SIGTERM)
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)

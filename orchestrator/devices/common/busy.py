"""An agent that still works for an earlier client, whose end it sees only when a load is done."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.wire.client import LOAD_LIMIT_S

BUSY_S = LOAD_LIMIT_S
"""How long a first connection waits for it: a client that was given up or ended while a model was compiled is gone
for the agent only when that is done."""


def tell_busy(say: Callable[[str], None], phone: str) -> None:
    """That a phone's app is waited for, and how to end that."""
    say(
        f"the app on {phone} still works for an earlier client, compiling a model can take minutes: waiting up to "
        f"{BUSY_S / 60:.0f} min; end the app to stop that"
    )

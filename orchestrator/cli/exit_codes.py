"""Exit codes of `bench` by the error that ends it."""

from __future__ import annotations

from luts.format.errors import BlocktimeError
from orchestrator.journal.records import MeasurementRejectedError
from orchestrator.wire import errors as wire
from search.algorithms import InfeasibleError

INTERRUPTED = 130
"""After Ctrl-C, as shells expect it; typer turns KeyboardInterrupt into it."""


def exit_code(error: BlocktimeError) -> int:
    """4 measurement rejected, 5 no architecture meets the constraint; else as agents exit."""
    if isinstance(error, MeasurementRejectedError):
        return 4
    return 5 if isinstance(error, InfeasibleError) else wire.exit_code(error)

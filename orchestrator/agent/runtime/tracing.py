"""Times of single operations, from ExecuTorch's event tracer (ETDump).

The tracer has an event for every operator outside the delegates, and XNNPACK's own profile for every operator
inside: whole microseconds, the rest of each cut off, so that the operations of a small network add up to less
than its time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.wire.replies import TracedOperation

_EXECUTE, _DELEGATE, _NATIVE = "Method::execute", "DELEGATE_CALL", "native_call_"


def take_operations(program: Any, skip: int) -> list[TracedOperation]:
    """Operations of a program loaded with `enable_etdump`, of its executions since this was last asked.

    Each one's time is its mean over the faster half of the executions, so that those count that nothing disturbed;
    a mean, because of what is cut off: an operation of 0.6 us shows 0 in most executions and 1 in some.

    Args:
        program: ExecuTorch's binding.
        skip: Executions to leave out, the earliest.
    """
    from executorch.devtools.etdump.serialize import deserialize_from_etdump_flatcc

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "operations.etdp"
        program.write_etdump_result_to_file(str(path))
        dump = deserialize_from_etdump_flatcc(path.read_bytes())
    runs = [list(_events(run.events or ())) for run in dump.run_data if run.name == "Execute"]
    return _faster_half([run for run in runs if run][skip:])


def _events(events: Iterable[Any]) -> Iterable[tuple[str, int | None, int]]:
    """Name, delegate call and ns of each operation; the whole execution last, with no name."""
    call = 0
    for event in (event.profile_event for event in events if event.profile_event):
        ns = event.end_time - event.start_time
        if event.delegate_debug_id_str:
            yield event.delegate_debug_id_str, call, ns
        elif event.name == _DELEGATE:
            call += 1
        elif event.name == _EXECUTE:
            yield "", None, ns
        elif event.name.startswith(_NATIVE):
            yield event.name, None, ns


def _faster_half(runs: Sequence[Sequence[tuple[str, int | None, int]]]) -> list[TracedOperation]:
    kept = sorted(runs, key=lambda run: run[-1][2])[: (len(runs) + 1) // 2]
    if not kept:
        return []
    return [
        TracedOperation(name=same[0][0][:256], call=same[0][1], ns=sum(ns for _, _, ns in same) / len(kept))
        for same in zip(*kept, strict=True)
        if same[0][0]
    ]

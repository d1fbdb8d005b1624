"""What the exports of a plan will take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from orchestrator.export.artifacts.spec import ExportSpec

START_S = 10.0
"""Until a worker has loaded torch and ExecuTorch: 6 to 15 s."""

BLOCK_S = 1.1
"""Lowering a block in a network of `autovit-xxs`, 25.1 s for 23 of them (docs/benchmarks.md, Exports of a plan)."""

SPLICED_BLOCK_S = 0.066
"""The same where the network is put together from parts of others: 265 s for 175, the parts included."""

MIN_KNOWN = 3
"""Exports that were made before from whose median the others' time is told."""


def export_seconds(missing: Sequence[ExportSpec], known_s: Sequence[float], workers: int) -> float:
    """Seconds until all are exported, roughly: by this machine's own exports of the plan, else by typical ones.

    Args:
        missing: Models to export.
        known_s: What those of the same plan took that are there already.
        workers: Processes that export.
    """
    if not missing:
        return 0.0
    busy = min(workers, len(missing))
    if len(known_s) >= MIN_KNOWN:
        return START_S + len(missing) * statistics.median(known_s) / busy
    # Without parts of others each worker begins with a whole network.
    first = busy if not known_s else 0
    each_s = [
        len(spec.blocks) * (SPLICED_BLOCK_S if spec.reusable and index >= first else BLOCK_S)
        for index, spec in enumerate(missing)
    ]
    return START_S + sum(each_s) / busy

"""`bench measure --runtime onnx,litert`: the same networks in several runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from luts.format.table import Column
from orchestrator.cli.output import emit_json, emit_rows, say, shown_progress, tell
from orchestrator.cli.output_files import TABLES, output_files, write_table
from orchestrator.tasks.networks import Networks
from orchestrator.tasks.runtimes import measure_runtimes
from orchestrator.tasks.target import Target

_COLUMNS = [
    Column("model", "model"),
    Column("runtime", "runtime"),
    Column("ms", "ms", 3),
    Column("ci_low", "95 % low", 3, spare=1),
    Column("ci_high", "high", 3, spare=1),
    Column("ratio", "to ExecuTorch", 3),
    Column("difference", "outputs differ"),
    Column("load_ms", "load ms", 2, spare=2),
    Column("bytes", "bytes", counted=True, spare=3),
]


def compare_runtimes(
    networks: Networks,
    target: Target,
    runtimes: Sequence[str],
    output: Sequence[Path],
    as_json: bool,
    *,
    resolution: int | None,
    budget_s: float,
    seed: int,
    self_test: bool,
    workers: int | None,
) -> None:
    """Measure and print."""
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        measured = measure_runtimes(
            networks,
            target,
            runtimes,
            resolution=resolution,
            budget_s=budget_s,
            seed=seed,
            self_test=self_test,
            workers=workers,
            progress=progress,
        )
    for name, reason in measured.failures.items():
        say(f"{name} is left out, not every runtime can have it: {reason}")
    for file in files:
        write_table(file, measured.to_dict(), "models")
    if as_json:
        emit_json(measured.to_dict())
        return
    rows = [asdict(row) | {"difference": f"{row.difference:.1e}"} for row in measured.rows]
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    threads = measured.setup.variant.threads
    emit_rows(f"{target.device}, threads: {threads}, {versions}", _COLUMNS, rows, False)
    for (a, b), tau in measured.tau.items():
        tell(f"Kendall's tau between the latencies in {a} and {b}: {tau:.3f}")

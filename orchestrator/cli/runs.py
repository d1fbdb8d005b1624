"""`bench runs`: past measurements."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.format.table import Column, filled, write_table
from orchestrator.cli.output import (
    TABLES,
    JsonOption,
    emit_facts,
    emit_json,
    emit_rows,
    output_files,
    say,
    show,
)
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.measured import PERCENTILE_COLUMNS
from orchestrator.tasks.runs import PastRun, find_past_run, past_runs, run_latencies
from orchestrator.tasks.sustained import is_sustained, read_sustained

_RUNS = [
    Column("name", "run"),
    Column("what", "of", spare=2),
    Column("device", "device", spare=3),
    Column("variant", "variant", spare=3),
    Column("numbers", "numbers"),
    Column("models", "models", spare=1),
    Column("kept", "batches", spare=2),
    Column("began", "began", spare=1),
    Column("state", "state"),
]
_MODELS = [
    Column("model", "model"),
    Column("ms", "ms", 3),
    Column("ci_low", "95 % low", 3),
    Column("ci_high", "high", 3),
    *PERCENTILE_COLUMNS,
    Column("loads", "loads"),
    Column("rounds", "rounds"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("runs")(runs_command)


def runs_command(
    run: Annotated[
        str | None, typer.Argument(help="Name of a run, a part of it that fits no other, or its folder.")
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write the table to a .csv or everything to a .json file."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List past measurements, newest first, or show the latencies of one.

    Runs are in $BLOCKTIME_RUNS (default: blocktime/runs in the XDG data folder).
    """
    files = output_files(output, TABLES)
    if run is not None and is_sustained(found := find_past_run(run)):
        sustained = read_sustained(found)
        for file in files:
            write_table(file, sustained.to_dict(), "points")
        show(sustained, as_json)
        return
    document = _one(run) if run is not None else _all()
    for file in files:
        write_table(file, document, "models" if run else "runs")
    if as_json:
        emit_json(document)
    elif run is None and document["runs"]:
        emit_rows("", _RUNS, [row | {"began": _minute(row["began"])} for row in document["runs"]], False)
    elif run is not None:
        facts = {name: value for name, value in document["run"].items() if value is not None}
        simulated = ", SIMULATED: not measured on any device" if facts["simulated"] else ""
        emit_facts(facts.pop("name") + simulated, facts, False)
        emit_rows("", filled(_MODELS, document["models"], PERCENTILE_COLUMNS), document["models"], False)
        for row in document["models"]:
            if row["failure"]:
                print(f"{row['model']} can't be measured: {row['failure']}")


def _minute(moment: str) -> str:
    """Return a moment in ISO 8601 as `2026-03-01 09:30`, in UTC."""
    return moment[:16].replace("T", " ")


def _all() -> dict[str, Any]:
    found, broken = past_runs()
    for name, reason in broken.items():
        say(f"warning: run {name} can't be read: {reason}")
    if not found:
        say(f"no runs in {runs_root()}")
    return {"runs": [_row(past) for past in found]}


def _one(name: str) -> dict[str, Any]:
    past, models = run_latencies(find_past_run(name))
    return {"run": _row(past), "models": [model.to_dict() for model in models]}


def _row(run: PastRun) -> dict[str, Any]:
    state = "open" if run.result is None else "done"
    return asdict(run) | {
        "folder": str(run.folder),
        "numbers": "simulated" if run.simulated else "measured",
        "state": state,
    }

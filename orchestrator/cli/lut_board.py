"""`bench lut board`: devices side by side by what the reference network takes on each."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from luts.format.files import write_text
from luts.format.table import Column
from orchestrator.cli.lut_store import LutsOption, open_store, tell
from orchestrator.cli.output import JsonOption, emit_json, emit_rows
from orchestrator.cli.output import tell as below
from orchestrator.cli.output_files import TABLES, output_files, write_table
from orchestrator.report.board import render_board
from orchestrator.tasks.board import make_board

_COLUMNS = [
    Column("space", "space"),
    Column("lut", "LUT"),
    Column("model", "device", spare=3),
    Column("reference_ms", "reference ms", 3),
    Column("times", "x fastest", 2),
    Column("noise_floor", "noise floor", 2, percent=True, spare=1),
    Column("mape", "held-out MAPE", 2, percent=True, spare=2),
    Column("day", "date", spare=1),
    Column("measured", "numbers"),
    Column("trust", "trust", spare=4),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("board")(board_command)


def board_command(
    url: Annotated[
        str | None,
        typer.Argument(
            help="A place of shared LUTs, as bench lut search takes it; the LUTs at hand without."
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Write the board into an .html page, a .csv or a .json."),
    ] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Devices by the latency of the reference network, with noise floor, held-out error and date.

    Latencies compare within one space and reference network alone; rows are in order of both.
    """
    files = output_files(output, (*TABLES, ".html"))
    board = make_board(url, open_store(luts), tell)
    rows = [asdict(row) | {"day": row.created[:10]} for row in board]
    for file in files:
        if file.suffix == ".html":
            write_text(file, render_board(board, url or "LUTs of this machine"))
        else:
            write_table(file, {"board": rows}, "board")
    if as_json:
        emit_json(rows)
        return
    emit_rows("", _COLUMNS, rows, False)
    if any(row.measured == "simulated" for row in board):
        below("SIMULATED rows were not measured on any device")

"""`bench lut import-published`: tables of block latencies that others published, as sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.published import read_table, write_published
from orchestrator.cli.lut_store import LutsOption, open_store
from orchestrator.cli.output import JsonOption, emit_facts
from orchestrator.tasks.parsing import parse_name


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import-published")(import_command)


def import_command(
    table: Annotated[Path, typer.Argument(help="The published file: a JSON object, milliseconds by block.")],
    name: Annotated[str, typer.Option(help="The device's short name, such as pixel6.")],
    source: Annotated[str, typer.Option(help="Where the numbers come from: a paper, a repository.")],
    licence: Annotated[str, typer.Option(help="Under which terms they were published.")],
    title: Annotated[str, typer.Option(help="The device as its source calls it; its short name.")] = "",
    space: Annotated[str, typer.Option(help="Whose block keys the table has.")] = "nn-meter-hybrid",
    variant: Annotated[
        str, typer.Option(help="How the blocks ran, as the source says: runtime and processor.")
    ] = "tflite-cpu",
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a table of block latencies that others published beside the LUTs: a source for a fit, never a LUT.

    It is labelled published, has no intervals, and its numbers are never called measured.
    """
    how = parse_name(variant, "--variant", "tflite-cpu")
    lut = read_table(table, parse_name(name), source, licence, space, how, title)
    path = write_published(lut, open_store(luts, made=True).roots[0])
    facts = {
        "published": str(lut),
        "device": lut.title,
        "numbers": f"{lut.label} by others, without intervals",
        "blocks": len(lut.blocks),
        "source": lut.source,
        "licence": lut.licence,
        "file_sha256": lut.file_sha256,
        "path": str(path),
    }
    emit_facts("", facts, as_json)

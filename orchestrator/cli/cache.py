"""`bench cache`: exported models that are kept, and making room."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from luts.format.table import Column
from orchestrator.cli.output import JsonOption, emit_json, emit_rows, say
from orchestrator.tasks.cache import CachePart, cache_parts, trim_cache
from orchestrator.tasks.parsing import parse_bytes

_COLUMNS = [
    Column("kind", "what"),
    Column("entries", "entries"),
    Column("megabytes", "MB", 1),
    Column("last_used", "last used"),
    Column("folder", "folder"),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("cache")(cache_command)


def cache_command(
    trim: Annotated[
        str | None,
        typer.Option(help="Remove what was not used for longest until at most this is left: 500MB, or 0."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What is kept of exports, so that none is made twice; all of it can be made again.

    It lies in $BLOCKTIME_CACHE (default: blocktime in the XDG cache folder). What was used within the last hour is
    not removed.
    """
    if trim is not None:
        trimmed = trim_cache(int(parse_bytes(trim, "--trim", zero=True)))
        say(f"{trimmed.entries:,} removed, {trimmed.payload_bytes / 1e6:.1f} MB")
        if trimmed.kept_in_use:
            say(f"{trimmed.kept_in_use:,} more stay that were used within the last hour")
    rows = [_row(part) for part in cache_parts()]
    if as_json:
        emit_json(rows)
        return
    whole = sum(row["payload_bytes"] for row in rows)
    emit_rows(f"{whole / 1e6:.1f} MB in caches", _COLUMNS, rows, False)


def _row(part: CachePart) -> dict[str, Any]:
    used = "" if part.used is None else datetime.fromtimestamp(part.used).isoformat(" ", "minutes")
    return asdict(part) | {
        "folder": str(part.folder),
        "megabytes": part.payload_bytes / 1e6,
        "last_used": used,
    }

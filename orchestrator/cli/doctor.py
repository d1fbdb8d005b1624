"""`bench doctor`: check this machine, build the native timing functions, and manage the cache."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from orchestrator.cli.options import with_options
from orchestrator.cli.output import JsonOption, ask, emit_json, emit_rows, say
from orchestrator.devices.common.device import Access
from orchestrator.tasks.bug_report import write_bug_report
from orchestrator.tasks.cache import CachePart, cache_parts, trim_cache
from orchestrator.tasks.doctor import Need, doctor
from orchestrator.tasks.native import build_native
from orchestrator.tasks.options import option
from orchestrator.tasks.parsing import parse_bytes

_CACHE_COLUMNS = [
    Column("kind", "content"),
    Column("entries", "entries"),
    Column("megabytes", "MB", 1),
    Column("last_used", "last used"),
    Column("folder", "folder"),
]


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of `bench doctor`."""

    device: str | None = option(None, "Device of the bug report (--bundle).")
    bundle: Path | None = option(
        None,
        "Write a bug report to this .zip: versions, the device's state and log, and its newest journal, "
        "without tokens, serial numbers and home folders.",
    )


def _cache_size(text: str, flag: str) -> int:
    return int(parse_bytes(text, flag, zero=True))


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Options of `bench doctor cache`."""

    keep: int | None = option(
        None,
        "Remove the least recently used entries until at most this is left: 5GB, 500MB, or 0.",
        flag="--keep --trim",
        parse=_cache_size,
        metavar="SIZE",
    )


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("doctor")(with_options(doctor_command))
    app.command("doctor native")(native_command)
    app.command("doctor cache")(with_options(cache_command))


def doctor_command(options: DoctorOptions, as_json: JsonOption = False) -> None:
    """Check packages, tools, agents and phones, and say what to do about what is missing."""
    device, bundle = options.device, options.bundle
    if (device is None) != (bundle is None):
        raise UsageError(
            "--device and --bundle go together: bench doctor --device pixel8 --bundle report.zip",
            code="incomplete_options",
        )
    if device and bundle:
        _write_bundle(device, bundle, as_json)
        return
    columns = [
        Column("name", "name"),
        Column("found", "found"),
        Column("for", "needed for"),
        Column("next_step", "what to do"),
    ]
    emit_rows("", columns, [_need_row(need) for need in doctor()], as_json)


def _write_bundle(device: str, bundle: Path, as_json: bool) -> None:
    written = write_bug_report(device, bundle, Access(say=say, ask=ask))
    if written.unreachable:
        say(f"{device} did not answer: {written.unreachable}")
    rows = [{"file": file, "bytes": size} for file, size in written.files.items()]
    emit_rows(str(bundle), [Column("file", "file"), Column("bytes", "bytes")], rows, as_json)


def _need_row(need: Need) -> dict[str, str]:
    return {
        "name": need.name,
        "found": need.present or "missing",
        "for": need.use,
        "next_step": "" if need.present else need.remedy,
    }


def native_command() -> None:
    """Build the native functions with which the Python agent times calls; needs g++, takes up to a minute."""
    say("building, up to a minute")
    print(build_native())


def cache_command(options: CacheOptions, as_json: JsonOption = False) -> None:
    """Show the cache of exported models, and make room.

    Exported models are in $BLOCKTIME_CACHE (default: blocktime in the XDG cache folder). The models of this
    machine's agents are always in the XDG cache folder, and --keep removes them too. Everything can be made
    again. Entries that were used within the last hour are not removed.
    """
    if options.keep is not None:
        trimmed = trim_cache(options.keep)
        say(f"{trimmed.entries:,} removed, {trimmed.payload_bytes / 1e6:.1f} MB")
        if trimmed.kept_in_use:
            say(f"{trimmed.kept_in_use:,} more were used within the last hour and stay")
    rows = [_cache_row(part) for part in cache_parts()]
    if as_json:
        emit_json(rows)
        return
    total = sum(row["payload_bytes"] for row in rows)
    emit_rows(f"{total / 1e6:.1f} MB in caches", _CACHE_COLUMNS, rows, False)


def _cache_row(part: CachePart) -> dict[str, Any]:
    used = "" if part.used is None else datetime.fromtimestamp(part.used).isoformat(" ", "minutes")
    return asdict(part) | {
        "folder": str(part.folder),
        "megabytes": part.payload_bytes / 1e6,
        "last_used": used,
    }

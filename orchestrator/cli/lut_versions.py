"""`bench lut list`, `pin` and `remove`: which LUTs there are, and which of its versions a name means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.store import LutRef, LutStore
from luts.format.table import Column
from luts.published import list_published, read_published
from luts.share.repository import trust
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store
from orchestrator.cli.output import JsonOption, emit_rows, say

_COLUMNS = [
    Column("lut", "LUT"),
    Column("taken", "by name"),
    Column("model", "device", spare=2),
    Column("kind", "numbers"),
    Column("reference_ms", "reference ms", 3, spare=1),
    Column("noise_floor", "noise floor", 2, percent=True, spare=2),
    Column("mape", "held-out MAPE", 2, percent=True),
    Column("created", "created", spare=3),
    Column("trust", "trust", spare=4),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(list_command)
    app.command("pin")(pin_command)
    app.command("remove")(remove_command)


def list_command(luts: LutsOption = None, as_json: JsonOption = False) -> None:
    """All LUTs that can be found, with what they were measured on, and tables that others published.

    «by name» says which version a name without one means, and why: it is pinned, or predicts best.
    """
    notes: list[str] = []
    store = LutStore(open_store(luts).roots, notes.append)
    refs = store.list()
    taken: set[LutRef] = set()
    for name in sorted({ref.name for ref in refs}):
        try:
            taken.add(store.current(name))
        except InvalidArtifactError as error:
            notes.append(f"{name}: {error}")
    rows = [_row(store, ref, ref in taken) for ref in refs]
    rows += [_published_row(name, path) for name, path in list_published(store.roots).items()]
    emit_rows("", _COLUMNS, rows, as_json)
    for note in notes + [f"{row['lut']} is broken: {row['broken']}" for row in rows if row["broken"]]:
        say(f"warning: {note}")


def _row(store: LutStore, ref: LutRef, taken: bool) -> dict[str, Any]:
    why = ("pinned" if store.pinned(ref.name) == ref.version else "newest") if taken else None
    row: dict[str, Any] = {"lut": str(ref), "taken": why, "path": str(ref.path), "broken": None}
    try:
        meta = store.load(ref).meta
    except InvalidArtifactError as error:
        return row | {"kind": "broken", "broken": str(error)}
    return row | {
        "model": meta.device.model,
        "kind": meta.measured,
        "reference_ms": meta.reference_ms,
        "noise_floor": meta.noise_floor,
        "mape": meta.heldout_error.mape if meta.heldout_error else None,
        "created": meta.created,
        "trust": trust(ref.path),
    }


def _published_row(name: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"lut": name, "taken": None, "path": str(path), "broken": None}
    try:
        published = read_published(path)
    except InvalidArtifactError as error:
        return row | {"kind": "broken", "broken": str(error)}
    return row | {"model": published.title, "kind": published.label, "created": published.imported}


def pin_command(
    lut: LutArgument,
    off: Annotated[bool, typer.Option("--off", help="Forget the pin of this name.")] = False,
    luts: LutsOption = None,
) -> None:
    """Make a version the one that its name without a version means, whatever is measured later."""
    store = open_store(luts)
    if off:
        name = _name(store, lut)
        store.unpin(name)
        print(f"{store.current(name)} is what {name} means now; nothing is pinned")
        return
    ref = store.resolve(lut)
    store.pin(ref)
    print(f"{ref} is pinned")


def _name(store: LutStore, lut: str) -> str:
    """`device/space/variant` of a name; a pin on a version that is gone is no hindrance."""
    exact = {ref.name for ref in store.list()} & {lut, lut.rpartition("/")[0]}
    return exact.pop() if exact else store.resolve(lut).name


def remove_command(
    lut: Annotated[str, typer.Argument(help="Its whole name with the version, or its folder.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    luts: LutsOption = None,
) -> None:
    """Remove one version of a LUT from the disk, samples and all. Its number is not given again."""
    store = LutStore(open_store(luts).roots, lambda _: None)
    ref = store.resolve(lut)
    if str(ref) != lut.strip("/") and ref.path.resolve() != Path(lut).resolve():
        raise UsageError(f"{lut} means {ref}; give that whole name to remove it")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{ref} ({ref.path}) would be removed for good; add --yes")
        typer.confirm(f"Remove {ref} ({ref.path}) for good?", abort=True, err=True)
    store.remove(ref)
    print(f"{ref} is removed")

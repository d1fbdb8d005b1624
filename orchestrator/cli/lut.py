"""`bench lut`: list, show, pin, verify, compare, adapt and use latency tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError, unknown
from luts.format.store import LutStore
from luts.share.repository import note_verified
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.cli import lut_adapt, lut_diff, lut_share
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store, warn
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import with_options
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, emit_rows, paged, say, show, tell
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.luts import ImportOptions, SortBy, import_published, list_luts
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.predict import PREDICTION_COLUMNS, predict, prediction_row
from orchestrator.tasks.proxy import proxy_for

ResolutionOption = Annotated[
    int | None,
    typer.Option("--resolution", min=1, help="Side of the input image in pixels; the network's own."),
]


app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)

lut_diff.register(app)
lut_share.register(app)
lut_adapt.register(app)


@app.command("list")
def list_command(
    sort: Annotated[
        SortBy,
        typer.Option(
            help="Order of the LUTs; `latency` compares devices by the reference network of a space."
        ),
    ] = SortBy.name,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List all LUTs and published tables.

    The column «by name» marks the version that a name without a version means: the pinned one, else the
    newest.
    """
    listed = list_luts(open_store(luts), sort)
    show(listed, as_json)
    for row in listed.rows:
        if row.broken:
            say(f"warning: {row.lut} is broken: {row.broken}")
    for problem in listed.problems:
        say(f"warning: {problem}")


@app.command("show")
def show_command(
    lut: LutArgument,
    kind: Annotated[str | None, typer.Option(help="Only blocks of this kind, e.g. mvit.layer.")] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a LUT's provenance and its entries, costliest first."""
    store = open_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref.path)
    entries = sorted(table.entries, key=lambda entry: (-entry.ms, entry.key))
    kinds = sorted({entry.kind for entry in entries})
    if kind is not None and kind not in kinds:
        raise UsageError(f"{ref}: " + unknown("kind", kind, kinds), code="unknown_kind")
    entries = [entry for entry in entries if kind in (None, entry.kind)]
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"lut": str(ref), "meta": table.meta.model_dump(), "entries": rows})
        return
    with paged():
        emit_facts(str(ref), provenance(table), False)
        tell("")
        emit_entries(entries)


@app.command("pin")
def pin_command(
    lut: LutArgument,
    off: Annotated[
        bool, typer.Option("--off", help="Remove the pin; the name means its newest version again.")
    ] = False,
    luts: LutsOption = None,
) -> None:
    """Make a LUT's name without a version mean this version instead of the newest."""
    store = open_store(luts)
    if off:
        exact = {ref.name for ref in store.list()} & {lut, lut.rpartition("/")[0]}
        name = exact.pop() if exact else store.resolve(lut).name
        store.unpin(name)
        print(f"{name} means {store.current(name)}; nothing is pinned")
        return
    ref = store.resolve(lut)
    store.pin(ref)
    print(f"{ref} is pinned")


@app.command("remove")
def remove_command(
    lut: Annotated[str, typer.Argument(help="Whole name with the version, or its folder.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    luts: LutsOption = None,
) -> None:
    """Delete one version of a LUT and its samples. No later LUT gets its number."""
    store = LutStore(open_store(luts).roots, lambda _: None)
    ref = store.resolve(lut)
    if str(ref) != lut.strip("/") and ref.path.resolve() != Path(lut).resolve():
        raise UsageError(f"{lut} means {ref}; give that whole name to remove it", code="not_a_whole_name")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{ref} ({ref.path}) would be deleted; add --yes", code="needs_confirmation")
        typer.confirm(f"Delete {ref} ({ref.path})?", abort=True, err=True)
    store.remove(ref)
    print(f"{ref} is removed")


@app.command("rebuild")
def rebuild_command(
    lut: LutArgument,
    name: Annotated[str | None, typer.Option(help="New name for its device.")] = None,
    luts: LutsOption = None,
) -> None:
    """Write a new version of a LUT, estimated again from its samples by this version of bench."""
    store = open_store(luts)
    print(store.write(rebuild(store.load(lut), parse_name(name) if name else "")))


@app.command("verify")
def verify_command(
    lut: LutArgument,
    key: lut_share.KeyOption = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check all files of a LUT and recompute its entries from the samples.

    With --key, check its signature.
    """
    store = open_store(luts)
    ref = store.resolve(lut)
    verified = verify_lut(ref.path)
    sources = check_sources(verified, store)
    trust = note_verified(ref.path, key)
    facts = {
        "lut": str(ref),
        "verdict": "valid: digests match, all entries follow from the samples",
        "trust": trust,
        "entries": len(verified.entries),
        "models": len(verified.models),
        "samples": verified.samples.num_rows,
        **({"sources": "; ".join(map(str, sources))} if sources else {}),
    }
    emit_facts("", facts, as_json)


@app.command("predict")
def predict_command(
    lut: LutArgument,
    arch: Annotated[
        list[str],
        typer.Option(
            "--arch", "--model", help="Architecture by name, or its JSON file (-: stdin); repeatable."
        ),
    ],
    resolution: ResolutionOption = None,
    device: Annotated[
        str | None,
        typer.Option(help="Predict for this device; intervals are wider if the LUT is of another device."),
    ] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the latency of whole networks."""
    store = open_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref)
    with shown_progress() as progress:
        predicted = predict(table, arch, resolution, progress)
    if device is not None and (proxy := proxy_for(ref, table, device, store)) is not None:
        warn(proxy.warning(ref))
        predicted = {name: proxy.widen(prediction) for name, prediction in predicted.items()}
    rows = [prediction_row(name, prediction) for name, prediction in predicted.items()]
    emit_rows("", PREDICTION_COLUMNS, rows, as_json)


@app.command("import-published")
@with_options
def import_command(options: ImportOptions, as_json: JsonOption = False) -> None:
    """Import a published table of block latencies, as a source for bench profile --from.

    It is labelled published, has no intervals, and its numbers are never called measured.
    """
    with shown_progress() as progress:
        emit_facts("", import_published(options, progress), as_json)


@app.command(
    "board", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def board_command() -> None:
    """Name the command that replaced this one."""
    raise UsageError(
        "bench lut board is now bench lut list --sort latency, of shared LUTs bench lut search URL --sort latency",
        code="moved_command",
    )

"""`bench lut`: list, show, pin, verify, compare, adapt and use latency tables."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError, unknown
from luts.format.store import LutStore
from luts.published import read_table, write_published
from luts.share.repository import note_verified
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.cli import lut_adapt, lut_diff, lut_share
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store, warn
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import ResolutionOption
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, emit_rows, paged, say, show, tell
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.luts import SortBy, list_luts
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.predict import PREDICTION_COLUMNS, predict, prediction_row
from orchestrator.tasks.proxy import proxy_for

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
def import_command(
    table: Annotated[Path, typer.Argument(help="The published file: a JSON object, milliseconds by block.")],
    name: Annotated[str, typer.Option(help="Short name of the device, such as pixel6.")],
    source: Annotated[str, typer.Option(help="Paper or repository that published the numbers.")],
    licence: Annotated[str, typer.Option(help="Licence of the numbers.")],
    title: Annotated[
        str, typer.Option(help="Device as named by its source.", show_default="its short name")
    ] = "",
    space: Annotated[str, typer.Option(help="Space of the table's block keys.")] = "nn-meter-hybrid",
    variant: Annotated[str, typer.Option(help="Runtime and processor of the measurements.")] = "tflite-cpu",
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import a published table of block latencies, as a source for bench profile --from.

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


@app.command(
    "board", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def board_command() -> None:
    """Name the command that replaced this one."""
    raise UsageError(
        "bench lut board is now bench lut list --sort latency, of shared LUTs bench lut search URL --sort latency",
        code="moved_command",
    )

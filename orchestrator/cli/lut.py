"""`bench lut`: list, show, verify, compare and use latency tables."""

from __future__ import annotations

from typing import Annotated

import typer

from luts.format.errors import UsageError, unknown
from luts.format.table import Column
from luts.share.repository import note_verified
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.cli import lut_adapt, lut_board, lut_diff, lut_published, lut_share, lut_versions
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store
from orchestrator.cli.lut_store import tell as tell_of_lut
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import ResolutionOption
from orchestrator.cli.output import JsonOption, emit_facts, emit_json, emit_rows, paged, shown_progress, tell
from orchestrator.tasks.foreign import for_device, foreign, warning
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.predict import predict

app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)

lut_versions.register(app)
lut_board.register(app)
lut_diff.register(app)
lut_published.register(app)
lut_share.register(app)
lut_adapt.register(app)


@app.command("show")
def show_command(
    lut: LutArgument,
    kind: Annotated[str | None, typer.Option(help="Only blocks of this kind, e.g. mvit.layer.")] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """A LUT's provenance and its entries, dearest first."""
    store = open_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref.path)
    entries = sorted(table.entries, key=lambda entry: (-entry.ms, entry.key))
    kinds = sorted({entry.kind for entry in entries})
    if kind is not None and kind not in kinds:
        raise UsageError(f"{ref}: " + unknown("kind", kind, kinds))
    entries = [entry for entry in entries if kind in (None, entry.kind)]
    if as_json:
        rows = [entry.model_dump() for entry in entries]
        emit_json({"lut": str(ref), "meta": table.meta.model_dump(), "entries": rows})
        return
    with paged():
        emit_facts(str(ref), provenance(table), False)
        tell("")
        emit_entries(entries)


@app.command("rebuild")
def rebuild_command(
    lut: LutArgument,
    name: Annotated[str | None, typer.Option(help="Another name for its device.")] = None,
    luts: LutsOption = None,
) -> None:
    """A new version of a LUT: its own samples, estimated as this version of bench does."""
    store = open_store(luts)
    print(store.write(rebuild(store.load(lut), parse_name(name) if name else "")))


@app.command("verify")
def verify_command(
    lut: LutArgument,
    key: lut_share.KeyOption = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every file of a LUT and recompute all entries from its samples; with --key, its signature too."""
    store = open_store(luts)
    ref = store.resolve(lut)
    verified = verify_lut(ref.path)
    sources = check_sources(verified, store)
    trust = note_verified(ref.path, key)
    facts = {
        "lut": str(ref),
        "verdict": "valid: digests hold, all entries follow from the samples",
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
        str | None, typer.Option(help="Predict for this device; warns and widens where the LUT is another's.")
    ] = None,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict whole-network latency of architectures."""
    store = open_store(luts)
    ref = store.resolve(lut)
    table = store.load(ref)
    with shown_progress() as progress:
        predicted = predict(table, arch, resolution, progress)
    if device is not None and (meant := foreign(ref, table, device, store)) is not None:
        tell_of_lut(warning(ref, meant))
        predicted = {name: for_device(prediction, meant) for name, prediction in predicted.items()}
    rows = [
        {
            "arch": name,
            "ms": prediction.ms,
            "low": prediction.low,
            "high": prediction.high,
            "level": prediction.level,
            "basis": prediction.basis,
            "weak": " ".join(prediction.weak_keys),
        }
        for name, prediction in predicted.items()
    ]
    columns = [
        Column("arch", "architecture"),
        Column("ms", "ms", 3),
        Column("low", "low", 3),
        Column("high", "high", 3),
        Column("level", "level", percent=True),
        Column("basis", "interval from", spare=1),
        Column("weak", "weakly known blocks"),
    ]
    emit_rows("", columns, rows, as_json)

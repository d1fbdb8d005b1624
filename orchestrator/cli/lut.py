"""`bench lut`: list, show, pin, verify, compare, adapt, share and use latency tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from luts.format.errors import UsageError, unknown
from luts.format.store import LutStore
from luts.format.table import Column, write_table
from luts.share.repository import note_verified, sign_lut
from luts.verify import check_sources, rebuild, verify_lut
from orchestrator.cli.lut_table import emit_entries, provenance
from orchestrator.cli.options import example, open_store, with_options
from orchestrator.cli.output import (
    TABLES,
    JsonOption,
    OutputFilesOption,
    emit_facts,
    emit_json,
    emit_rows,
    output_files,
    paged,
    say,
    show,
    tell,
)
from orchestrator.cli.profile import show_profile
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.adapt import AdaptCommand, adapt
from orchestrator.tasks.luts import (
    DiffCommand,
    ImportOptions,
    SortBy,
    compare_luts,
    import_published,
    list_luts,
    pull_lut,
    push_lut,
    shared_luts,
)
from orchestrator.tasks.options import REQUIRED, LutOptions, StoreOptions, argument, option
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.predict import PREDICTION_COLUMNS, predict, prediction_row
from orchestrator.tasks.proxy import proxy_for

app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)


@dataclass(frozen=True, kw_only=True)
class ListOptions(StoreOptions):
    """Options of `bench lut list`."""

    sort: SortBy = option(
        SortBy.name, "Order of the LUTs; `latency` compares devices by the reference network of a space."
    )


@app.command("list")
@with_options
def list_command(options: ListOptions, as_json: JsonOption = False) -> None:
    """List all LUTs and published tables.

    The column «by name» marks the version that a name without a version means: the pinned one, else the
    newest.
    """
    listed = list_luts(open_store(options), options.sort)
    show(listed, as_json)
    for row in listed.rows:
        if row.broken:
            warn(f"{row.lut} is broken: {row.broken}")
    for problem in listed.problems:
        warn(problem)


@dataclass(frozen=True, kw_only=True)
class ShowOptions(LutOptions):
    """Options of `bench lut show`."""

    kind: str | None = option(None, "Only blocks of this kind, e.g. mvit.layer.")


@app.command("show")
@with_options
def show_command(options: ShowOptions, as_json: JsonOption = False) -> None:
    """Show a LUT's provenance and its entries, costliest first."""
    store = open_store(options)
    ref = store.resolve(options.lut)
    table = store.load(ref.path)
    entries = sorted(table.entries, key=lambda entry: (-entry.ms, entry.key))
    kind, kinds = options.kind, sorted({entry.kind for entry in entries})
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


@app.command("diff")
@with_options
def diff_command(options: DiffCommand, output: OutputFilesOption = None, as_json: JsonOption = False) -> None:
    """Compare two or more LUTs: by block, by kind of block, or by rank."""
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        compared = compare_luts(options, progress)
    for file in files:
        document = compared.to_dict()
        write_table(file, document | {"rows": compared.rows} if file.suffix == ".csv" else document, "rows")
    show(compared, as_json)


@dataclass(frozen=True, kw_only=True)
class PinOptions(LutOptions):
    """Options of `bench lut pin`."""

    off: bool = option(False, "Remove the pin; the name means its newest version again.")


@app.command("pin")
@with_options
def pin_command(options: PinOptions) -> None:
    """Make a LUT's name without a version mean this version instead of the newest."""
    store, lut = open_store(options), options.lut
    if options.off:
        exact = {ref.name for ref in store.list()} & {lut, lut.rpartition("/")[0]}
        name = exact.pop() if exact else store.resolve(lut).name
        store.unpin(name)
        print(f"{name} means {store.current(name)}; nothing is pinned")
        return
    ref = store.resolve(lut)
    store.pin(ref)
    print(f"{ref} is pinned")


@dataclass(frozen=True, kw_only=True)
class RemoveOptions(StoreOptions):
    """Options of `bench lut remove`."""

    lut: str = argument(REQUIRED, "Whole name with the version, or its folder.", metavar="LUT")
    yes: bool = option(False, "Do not ask for confirmation.", flag="--yes -y")


@app.command("remove")
@with_options
def remove_command(options: RemoveOptions) -> None:
    """Delete one version of a LUT and its samples. No later LUT gets its number."""
    lut = options.lut
    store = LutStore(open_store(options).roots, lambda _: None)
    ref = store.resolve(lut)
    if str(ref) != lut.strip("/") and ref.path.resolve() != Path(lut).resolve():
        raise UsageError(f"{lut} means {ref}; give that whole name to remove it", code="not_a_whole_name")
    if not options.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{ref} ({ref.path}) would be deleted; add --yes", code="needs_confirmation")
        typer.confirm(f"Delete {ref} ({ref.path})?", abort=True, err=True)
    store.remove(ref)
    print(f"{ref} is removed")


@dataclass(frozen=True, kw_only=True)
class RebuildOptions(LutOptions):
    """Options of `bench lut rebuild`."""

    name: str = option("", "New name for its device.", parse=parse_name, metavar="NAME")


@app.command("rebuild")
@with_options
def rebuild_command(options: RebuildOptions) -> None:
    """Write a new version of a LUT, estimated again from its samples by this version of bench."""
    store = open_store(options)
    print(store.write(rebuild(store.load(options.lut), options.name)))


@dataclass(frozen=True, kw_only=True)
class KeyOptions:
    """The public key of a signature."""

    key: Path | None = option(None, "Public Ed25519 key (PEM); a LUT that it did not sign is refused.")


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(LutOptions, KeyOptions):
    """Options of `bench lut verify`."""


@app.command("verify")
@with_options
def verify_command(options: VerifyOptions, as_json: JsonOption = False) -> None:
    """Check all files of a LUT and recompute its entries from the samples.

    With --key, check its signature.
    """
    store = open_store(options)
    ref = store.resolve(options.lut)
    verified = verify_lut(ref.path)
    sources = check_sources(verified, store)
    trust = note_verified(ref.path, options.key)
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


@dataclass(frozen=True, kw_only=True)
class PredictOptions(LutOptions):
    """Options of `bench lut predict`."""

    arch: tuple[str, ...] = option(
        REQUIRED,
        "Architecture by name, or its JSON file (-: stdin); repeatable.",
        flag="--arch --model",
    )
    resolution: int | None = option(
        None, "Side of the input image in pixels.", minimum=1, shown="the network's own"
    )
    device: str | None = option(
        None, "Predict for this device; intervals are wider if the LUT is of another device."
    )


@app.command("predict")
@with_options
def predict_command(options: PredictOptions, as_json: JsonOption = False) -> None:
    """Predict the latency of whole networks."""
    store = open_store(options)
    ref = store.resolve(options.lut)
    table = store.load(ref)
    with shown_progress() as progress:
        predicted = predict(table, options.arch, options.resolution, progress)
    if options.device is not None and (proxy := proxy_for(ref, table, options.device, store)) is not None:
        warn(proxy.warning(ref))
        predicted = {name: proxy.widen(prediction) for name, prediction in predicted.items()}
    rows = [prediction_row(name, prediction) for name, prediction in predicted.items()]
    emit_rows("", PREDICTION_COLUMNS, rows, as_json)


@app.command("adapt", epilog=example("bench lut adapt pixel8/autovit-xxs --device iphone13 -n 5"))
@with_options
def adapt_command(options: AdaptCommand, as_json: JsonOption = False) -> None:
    """Adapt another device's LUT: measure a few networks, and learn the rest from the LUT.

    Same as bench profile --from LUT with a plan of a few networks of the LUT's space, resolutions and classes.
    """
    with shown_progress() as progress:
        profiled = adapt(options, progress)
    show_profile(profiled, as_json)


@app.command("import-published")
@with_options
def import_command(options: ImportOptions, as_json: JsonOption = False) -> None:
    """Import a published table of block latencies, as a source for bench profile --from.

    It is labelled published, has no intervals, and its numbers are never called measured.
    """
    with shown_progress() as progress:
        emit_facts("", import_published(options, progress), as_json)


def _url_argument() -> str:
    url: str = argument(
        REQUIRED,
        "A folder, s3://bucket/folder, hf://datasets/user/name, or https:// to read.",
        metavar="URL",
    )
    return url


@dataclass(frozen=True, kw_only=True)
class PushOptions(LutOptions):
    """Options of `bench lut push`."""

    url: str = _url_argument()


@app.command("push")
@with_options
def push_command(options: PushOptions) -> None:
    """Verify a LUT and share it, with its signature if it has one. Shared LUTs never change."""
    shared, new = push_lut(options.lut, options.url, open_store(options), warn)
    print(f"{shared} is {'now' if new else 'already'} in {options.url}")


@dataclass(frozen=True, kw_only=True)
class PullOptions(StoreOptions, KeyOptions):
    """Options of `bench lut pull`."""

    url: str = _url_argument()
    lut: str = argument(
        REQUIRED,
        "device/space/variant, parts of it that fit one, or the first digits of a digest.",
        metavar="LUT",
    )
    verify: bool = option(
        True,
        "Recompute all its entries first; otherwise it is marked unverified.",
        flag="--verify/--no-verify",
    )


@app.command("pull")
@with_options
def pull_command(options: PullOptions, as_json: JsonOption = False) -> None:
    """Download a shared LUT as the next version of its name, verified against its samples."""
    store = open_store(options, create=True)
    pulled = pull_lut(options.url, options.lut, store, options.key, options.verify, warn)
    facts = {
        "lut": str(pulled.lut),
        "trust": pulled.trust,
        "digest": pulled.lut.digest,
        "path": str(pulled.path),
        "new": pulled.new,
    }
    emit_facts("", facts, as_json)
    if pulled.trust.startswith("unverified"):
        warn("unverified: its entries were not recomputed; run bench lut verify")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Options of `bench lut search`."""

    url: str = _url_argument()
    words: tuple[str, ...] = argument(
        (), "Words that name, device, SoC or variant must contain.", metavar="[WORD]..."
    )
    sort: SortBy = option(
        SortBy.name, "Order of the LUTs; `latency`: by space, reference network and its latency."
    )


_SHARED_COLUMNS = [
    Column("lut", "LUT"),
    Column("model", "device", spare=2),
    Column("soc", "SoC", spare=4),
    Column("measured", "numbers"),
    Column("reference_ms", "reference ms", 3, spare=1),
    Column("noise_floor", "noise floor", 2, percent=True, spare=2),
    Column("mape", "held-out MAPE", 2, percent=True),
    Column("created", "created", spare=3),
]


@app.command("search")
@with_options
def search_command(options: SearchOptions, as_json: JsonOption = False) -> None:
    """List shared LUTs as their index describes them: claims until they are pulled and verified."""
    url, words = options.url, options.words
    luts = shared_luts(url, warn)
    if options.sort is SortBy.latency:
        luts = sorted(luts, key=lambda lut: (lut.space, lut.reference_id, lut.reference_ms, str(lut)))
    found = [
        {"lut": str(lut), **lut.model_dump(exclude={"format", "files"})}
        for lut in luts
        if all(word.lower() in f"{lut} {lut.model} {lut.soc} {lut.os}".lower() for word in words)
    ]
    if not found and words and not as_json:
        raise UsageError(
            f"{url}: no LUT has {' '.join(words)}; bench lut search {url} lists all", code="unknown_lut"
        )
    emit_rows("", _SHARED_COLUMNS, found, as_json)
    if not found:
        say(f"{url} has no LUTs; share one with bench lut push LUT {url}")


@dataclass(frozen=True, kw_only=True)
class SignOptions(LutOptions):
    """Options of `bench lut sign`."""

    key: Path = option(REQUIRED, "Private Ed25519 key (PEM) of openssl genpkey.")


@app.command("sign")
@with_options
def sign_command(options: SignOptions) -> None:
    """Sign a LUT: a detached Ed25519 signature of its lut.json, which has the digests of its other files."""
    print(sign_lut(open_store(options).resolve(options.lut), options.key))


@app.command(
    "board", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def board_command() -> None:
    """Name the command that replaced this one."""
    raise UsageError(
        "bench lut board is now bench lut list --sort latency, of shared LUTs bench lut search URL --sort latency",
        code="moved_command",
    )


def warn(note: str) -> None:
    """Print a warning to stderr."""
    say(f"warning: {note}")

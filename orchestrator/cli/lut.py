"""`bench lut`: list, show, pin, verify, compare, adapt, share and use latency tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from luts.format.errors import UsageError
from luts.format.store import LutStore
from luts.format.table import write_table
from orchestrator.cli.options import add_command, open_store, with_options
from orchestrator.cli.output import TABLES, JsonOption, OutputFilesOption, output_files, paged, say, show
from orchestrator.cli.progress import shown_progress
from orchestrator.tasks.lut_diff import DiffCommand, compare_luts
from orchestrator.tasks.luts import LutShowOptions, list_luts, pin_lut, rebuild_lut, show_lut, sign, verify
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.profile import adapt
from orchestrator.tasks.shared_luts import SharedOptions, import_published, pull_lut, push_lut, shared_luts

app = typer.Typer(help="Latency tables (LUTs).", no_args_is_help=True)

add_command(app, "list", list_luts)


@app.command("show", help=LutShowOptions.__doc__)
@with_options
def _show(options: LutShowOptions, as_json: JsonOption = False) -> None:
    with shown_progress() as progress:
        view = show_lut(options, progress)
    with paged():
        show(view, as_json)


@app.command("diff", help=DiffCommand.__doc__)
@with_options
def _diff(options: DiffCommand, output: OutputFilesOption = None, as_json: JsonOption = False) -> None:
    files = output_files(output, TABLES)
    with shown_progress() as progress:
        compared = compare_luts(options, progress)
    for file in files:
        document = compared.to_dict()
        write_table(file, document | {"rows": compared.rows} if file.suffix == ".csv" else document, "rows")
    show(compared, as_json)


add_command(app, "pin", pin_lut)


@dataclass(frozen=True, kw_only=True)
class RemoveOptions(StoreOptions):
    """Delete one version of a LUT and its samples. No later LUT gets its number."""

    lut: str = argument(REQUIRED, "Whole name with the version, or its folder.", metavar="LUT")
    yes: bool = option(False, "Do not ask for confirmation.", flag="--yes -y")


@app.command("remove", help=RemoveOptions.__doc__)
@with_options
def _remove(options: RemoveOptions) -> None:
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


add_command(app, "rebuild", rebuild_lut)
add_command(app, "verify", verify)
add_command(app, "adapt", adapt, "bench lut adapt pixel8/autovit-xxs --device iphone13 -n 5")
add_command(app, "import-published", import_published)
add_command(app, "push", push_lut)
add_command(app, "pull", pull_lut)


@app.command("search", help=SharedOptions.__doc__)
@with_options
def _search(options: SharedOptions, as_json: JsonOption = False) -> None:
    url, words = options.url, options.words
    with shown_progress() as progress:
        found = shared_luts(options, progress)
    if not found.rows and words and not as_json:
        raise UsageError(
            f"{url}: no LUT has {' '.join(words)}; bench lut search {url} lists all", code="unknown_lut"
        )
    show(found, as_json)
    if not found.rows:
        say(f"{url} has no LUTs; share one with bench lut push LUT {url}")


add_command(app, "sign", sign)


@app.command(
    "board", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def _board() -> None:
    raise UsageError(
        "bench lut board is now bench lut list --sort latency, of shared LUTs bench lut search URL --sort latency",
        code="moved_command",
    )

"""`bench lut push`, `pull`, `search` and `sign`.

Share LUTs through a folder, S3, the Hugging Face hub or HTTP.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luts.format.errors import UsageError
from luts.format.table import Column
from luts.share.repository import sign_lut
from orchestrator.cli.lut_store import LutArgument, LutsOption, open_store, warn
from orchestrator.cli.output import JsonOption, emit_facts, emit_rows, say
from orchestrator.tasks.luts import SortBy
from orchestrator.tasks.share import pull_lut, push_lut, shared_luts

UrlArgument = Annotated[
    str, typer.Argument(help="A folder, s3://bucket/folder, hf://datasets/user/name, or https:// to read.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="Public Ed25519 key (PEM); a LUT that it did not sign is refused."),
]

_COLUMNS = [
    Column("lut", "LUT"),
    Column("model", "device", spare=2),
    Column("soc", "SoC", spare=4),
    Column("measured", "numbers"),
    Column("reference_ms", "reference ms", 3, spare=1),
    Column("noise_floor", "noise floor", 2, percent=True, spare=2),
    Column("mape", "held-out MAPE", 2, percent=True),
    Column("created", "created", spare=3),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("push")(push_command)
    app.command("pull")(pull_command)
    app.command("search")(search_command)
    app.command("sign")(sign_command)


def push_command(lut: LutArgument, url: UrlArgument, luts: LutsOption = None) -> None:
    """Verify a LUT and share it, with its signature if it has one. Shared LUTs never change."""
    shared, new = push_lut(lut, url, open_store(luts), warn)
    print(f"{shared} is {'now' if new else 'already'} in {url}")


def pull_command(
    url: UrlArgument,
    lut: Annotated[
        str,
        typer.Argument(
            help="device/space/variant, parts of it that fit one, or the first digits of a digest."
        ),
    ],
    key: KeyOption = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify", help="Recompute all its entries first; otherwise it is marked unverified."
        ),
    ] = True,
    luts: LutsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a shared LUT as the next version of its name, verified against its samples."""
    pulled = pull_lut(url, lut, open_store(luts, made=True), key, verify, warn)
    facts = {
        "lut": str(pulled.lut),
        "trust": pulled.trust,
        "digest": pulled.lut.digest,
        "path": str(pulled.path),
        "new": pulled.new,
    }
    emit_facts("", facts, as_json)
    if pulled.trust.startswith("unverified"):
        say("warning: unverified: its entries were not recomputed; run bench lut verify")


def search_command(
    url: UrlArgument,
    words: Annotated[
        list[str] | None,
        typer.Argument(help="Words that name, device, SoC or variant must contain."),
    ] = None,
    sort: Annotated[
        SortBy,
        typer.Option(help="Order of the LUTs; `latency`: by space, reference network and its latency."),
    ] = SortBy.name,
    as_json: JsonOption = False,
) -> None:
    """List shared LUTs as their index describes them: claims until they are pulled and verified."""
    luts = shared_luts(url, warn)
    if sort is SortBy.latency:
        luts = sorted(luts, key=lambda lut: (lut.space, lut.reference_id, lut.reference_ms, str(lut)))
    found = [
        {"lut": str(lut), **lut.model_dump(exclude={"format", "files"})}
        for lut in luts
        if all(word.lower() in f"{lut} {lut.model} {lut.soc} {lut.os}".lower() for word in words or ())
    ]
    if not found and words and not as_json:
        raise UsageError(
            f"{url}: no LUT has {' '.join(words)}; bench lut search {url} lists all", code="unknown_lut"
        )
    emit_rows("", _COLUMNS, found, as_json)
    if not found:
        say(f"{url} has no LUTs; share one with bench lut push LUT {url}")


def sign_command(
    lut: LutArgument,
    key: Annotated[Path, typer.Option("--key", help="Private Ed25519 key (PEM) of openssl genpkey.")],
    luts: LutsOption = None,
) -> None:
    """Sign a LUT: a detached Ed25519 signature of its lut.json, which has the digests of its other files."""
    print(sign_lut(open_store(luts).resolve(lut), key))

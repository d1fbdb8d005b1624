"""LUTs of others: shared in folders, S3, the Hugging Face hub and on web servers, or published as tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from luts.format.table import Column, Facts, Table
from luts.published import read_table, write_published
from luts.share import repository as shared
from luts.share.location import location
from luts.share.repository import Repository
from orchestrator.tasks.luts import KeyOptions, SortBy
from orchestrator.tasks.options import REQUIRED, LutOptions, StoreOptions, argument, option
from orchestrator.tasks.parsing import parse_name
from orchestrator.tasks.progress import Note, Progress, silent


@dataclass(frozen=True, kw_only=True)
class ImportOptions(StoreOptions):
    """Import a published table of block latencies, as a source for bench profile --from.

    It is labelled published, has no intervals, and its numbers are never called measured.
    """

    table: Path = argument(REQUIRED, "The published file: a JSON object of milliseconds by block.")
    name: str = option(
        REQUIRED, "Short name of the device, such as pixel6.", parse=parse_name, metavar="NAME"
    )
    source: str = option(REQUIRED, "Paper or repository that published the numbers.")
    licence: str = option(REQUIRED, "Licence of the numbers.")
    title: str = option("", "Device as named by its source.", shown="its short name")
    space: str = option("nn-meter-hybrid", "Space of the table's block keys.")
    variant: str = option("tflite-cpu", "Runtime and processor of the measurements.")


def import_published(options: ImportOptions, progress: Progress = silent) -> Facts:
    """Import a published table of block latencies, and return facts about it.

    Raises:
        UsageError: an unknown space, or another table has this name.
        InvalidArtifactError: the file is missing or malformed.
        StorageError: it can't be written.
    """
    variant = parse_name(options.variant, "--variant", "tflite-cpu")
    lut = read_table(
        options.table, options.name, options.source, options.licence, options.space, variant, options.title
    )
    path = write_published(lut, options.open_store(progress, create=True).roots[0])
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
    return Facts("", facts)


def _url_argument() -> str:
    url: str = argument(
        REQUIRED,
        "A folder, s3://bucket/folder, hf://datasets/user/name, or https:// to read.",
        metavar="URL",
    )
    return url


@dataclass(frozen=True, kw_only=True)
class PushOptions(LutOptions):
    """Verify a LUT and share it, with its signature if it has one. Shared LUTs never change."""

    url: str = _url_argument()


def push_lut(options: PushOptions, progress: Progress = silent) -> str:
    """Share a LUT; return a line that says whether it is new there.

    Raises:
        UsageError: an unknown LUT, or the repository is read-only.
        InvalidArtifactError: it does not verify.
        StorageError: the repository can't be reached or written.
    """
    ref = options.open_store(progress).resolve(options.lut)
    lut, new = shared.push(_repository(options.url, progress), ref.path)
    return f"{lut} is {'now' if new else 'already'} in {options.url}"


@dataclass(frozen=True, kw_only=True)
class PullOptions(StoreOptions, KeyOptions):
    """Download a shared LUT as the next version of its name, verified against its samples."""

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


def pull_lut(options: PullOptions, progress: Progress = silent) -> Facts:
    """Download a LUT into the first folder, and return facts about it.

    Raises:
        UsageError: no LUT, or several, have such a name.
        InvalidArtifactError: it is damaged, does not verify, or is not signed by the key; nothing is written.
        StorageError: the repository can't be reached.
    """
    store, repository = options.open_store(progress, create=True), _repository(options.url, progress)
    pulled = shared.pull(repository, options.lut, store, options.key, options.verify)
    if pulled.trust.startswith("unverified"):
        repository.warn("unverified: its entries were not recomputed; run bench lut verify")
    facts = {
        "lut": str(pulled.lut),
        "trust": pulled.trust,
        "digest": pulled.lut.digest,
        "path": str(pulled.path),
        "new": pulled.new,
    }
    return Facts("", facts)


@dataclass(frozen=True, kw_only=True)
class SharedOptions:
    """List shared LUTs as their index describes them: claims until they are pulled and verified."""

    url: str = _url_argument()
    words: tuple[str, ...] = argument(
        (), "Words that name, device, SoC or variant must contain.", metavar="[WORD]..."
    )
    sort: SortBy = option(
        SortBy.name, "Order of the LUTs; `latency`: by space, reference network and its latency."
    )


SHARED_COLUMNS = (
    Column("lut", "LUT"),
    Column("model", "device", spare=2),
    Column("soc", "SoC", spare=4),
    Column("measured", "numbers"),
    Column("reference_ms", "reference ms", 3, spare=1),
    Column("noise_floor", "noise floor", 2, percent=True, spare=2),
    Column("mape", "held-out MAPE", 2, percent=True),
    Column("created", "created", spare=3),
)


def shared_luts(options: SharedOptions, progress: Progress = silent) -> Table:
    """Return the LUTs of a repository that have all words. Raises StorageError."""
    luts = _repository(options.url, progress).luts()
    if options.sort is SortBy.latency:
        luts = sorted(luts, key=lambda lut: (lut.space, lut.reference_id, lut.reference_ms, str(lut)))
    found = [
        {"lut": str(lut), **lut.model_dump(exclude={"format", "files"})}
        for lut in luts
        if all(word.lower() in f"{lut} {lut.model} {lut.soc} {lut.os}".lower() for word in options.words)
    ]
    return Table("", SHARED_COLUMNS, found)


def _repository(url: str, progress: Progress) -> Repository:
    """Return the repository at a place; entries that can't be read give a note each."""
    return Repository(location(url), lambda note: progress(Note(f"warning: {note}")))

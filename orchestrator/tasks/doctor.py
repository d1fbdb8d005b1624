"""What `bench doctor` does: check what is installed and attached, report a bug, show and trim caches."""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import re
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from luts.format.errors import BlocktimeError, StorageError, UsageError, install_extra
from luts.format.files import check_writable, storage_errors, write_atomically
from luts.format.provenance import __version__
from luts.format.table import Column, Table
from orchestrator.agent.agent import TOKEN_VARIABLE
from orchestrator.agent.device import how_to_build_agents
from orchestrator.agent.programs import AGENTS, agent_program
from orchestrator.devices.common.device import Access
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.host import default_store_dir
from orchestrator.devices.lock import lock_device
from orchestrator.export.artifacts.artifact import ArtifactCache
from orchestrator.export.artifacts.spec import toolchain
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.options import option, target_option
from orchestrator.tasks.parsing import parse_bytes
from orchestrator.tasks.progress import Note, Progress, silent
from orchestrator.tasks.smoke import smoke_test
from orchestrator.tasks.target import Target
from orchestrator.wire.errors import DeviceError

_PACKAGES = {
    "torch": ("building and training networks", ""),
    "executorch": ("export to .pte and the host agent", ""),
    "coremltools": ("export to .mlpackage", ""),
    "timm": ("published networks and teachers", ""),
    "adb_shell": ("Android phones without an adb server", "android"),
    "adbutils": ("Android phones", "android"),
    "pymobiledevice3": ("iPhones", "ios"),
    "ray": ("many workers", "cluster"),
    "s3fs": ("LUTs shared through S3", "share"),
    "huggingface_hub": ("LUTs shared through the Hugging Face hub", "share"),
    "aiohttp": ("LUTs shared by a web server", "share"),
    "cryptography": ("signatures of LUTs", "share"),
    "onnxruntime": ("--runtime onnx on this machine", "onnx"),
    "ai_edge_litert": ("--runtime litert on this machine", "litert"),
}
_TOOLS = {
    "adb": "optional: starts the adb server for Android phones; adbutils brings it for most computers",
    "java": "the Kotlin agent on this machine",
    "g++": "native calls of the Python agent, and building the other two",
}


MAX_FILE_BYTES = 1 << 20
"""Limit of each file before compression; of longer ones the beginning and the end are kept."""

_TOKEN = re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{32}(?![0-9a-fA-F])")
"""Tokens of agents; sha256 digests are twice as long."""
_HOMES = re.compile(r"/(?:home|Users)/[^/\s\"']+|/root(?=[/\s\"']|$)")


IN_USE_S = 3600.0
"""Entries used within this time are never removed: a running measurement may still send or load them."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(Target):
    """Check packages, tools, agents and phones, and say what to do about what is missing."""

    device: str = target_option("", "Device of --smoke or --bundle.")
    smoke: bool = option(False, "Run a tiny network on the device and check its outputs; a minute, no LUT.")
    bundle: Path | None = option(
        None,
        "Write a bug report to this .zip: versions, the device's state and log, and its newest journal, "
        "without tokens, serial numbers and home folders.",
    )


def check_machine(options: DoctorOptions, progress: Progress = silent) -> Table:
    """Return what is there and what is missing, the steps of a smoke test, or the files of a bug report.

    Raises:
        UsageError: a device without --smoke or --bundle, or the other way round.
        StorageError: the report can't be written.
    """
    if options.smoke + (options.bundle is not None) != bool(options.device):
        raise UsageError(
            "--device goes with --smoke or with --bundle: bench doctor --device pixel8 --smoke",
            code="incomplete_options",
        )
    if options.smoke:
        return smoke_test(options, progress)
    if options.bundle is None:
        columns = (
            Column("name", "name"),
            Column("found", "found"),
            Column("for", "needed for"),
            Column("next_step", "what to do"),
        )
        return Table("", columns, [need.to_dict() for need in doctor()])
    written = write_bug_report(options.device, options.bundle, options.access)
    if written.unreachable:
        progress(Note(f"{options.device} did not answer: {written.unreachable}"))
    rows = [{"file": file, "bytes": size} for file, size in written.files.items()]
    return Table(str(options.bundle), (Column("file", "file"), Column("bytes", "bytes")), rows)


@dataclass(frozen=True)
class Need:
    """One requirement: a package, tool, agent or kind of phone; `present` is its version or path, or empty."""

    name: str
    present: str
    use: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """Return the row of the command's table."""
        return {
            "name": self.name,
            "found": self.present or "missing",
            "for": self.use,
            "next_step": "" if self.present else self.remedy,
        }


def doctor() -> list[Need]:
    """Return the state of packages, tools and agents, and why phones are not found."""
    needs = [_package(name, use, extra) for name, (use, extra) in _PACKAGES.items()]
    needs += [Need(name, shutil.which(name) or "", use, f"install {name}") for name, use in _TOOLS.items()]
    needs += [_agent(language) for language in AGENTS]
    needs.append(_native_calls())
    needs += [
        Need(gap.kind, "", f"{gap.kind}: {gap.reason}", gap.next_step) for gap in list_attached().unavailable
    ]
    return needs


def _package(name: str, use: str, extra: str) -> Need:
    try:
        installed = version(name)
    except PackageNotFoundError:
        installed = ""
    return Need(name, installed, use, install_extra(extra) if extra else f"pip install {name}")


def _native_calls() -> Need:
    """Return the state of the agent's native functions; without them it times ExecuTorch's Python binding."""
    use = "the Python agent's timing with no interpreter in it"
    if find_spec("executorch") is None:
        return Need("native calls", "", use, "pip install executorch")
    from orchestrator.agent.native import ShimMissingError, find_shim

    try:
        return Need("native calls", f"ExecuTorch {find_shim().runtime_version()}", use, "")
    except ShimMissingError as error:
        return Need("native calls", "", use, str(error))


def _agent(language: str) -> Need:
    use = f"--agent {language}"
    try:
        return Need(f"{language} agent", agent_program(language).command[0], use, "")
    except DeviceError:
        return Need(f"{language} agent", "", use, how_to_build_agents())


@dataclass(frozen=True)
class BugReport:
    """A written report: the zip, the bytes of its files, and why the device did not answer, empty if it did."""

    path: Path
    files: Mapping[str, int]
    unreachable: str


def write_bug_report(name: str, path: Path, access: Access | None = None) -> BugReport:
    """Write versions, what is attached, the device's state and log, and its newest run's journal into a zip.

    Tokens, serial numbers and the names of home folders are replaced. If the device does not
    answer, the report says why.

    Raises:
        StorageError: the zip can't be written.
    """
    check_writable(path)
    listing = list_attached()
    device, unreachable = _ask(name, access or Access())
    serials = [phone.serial for phone in listing.attached] + [device.pop("serial", "")]
    clean = _cleaner(serials)
    report = {
        "versions.json": _json({"blocktime": __version__, "system": platform.platform(), **toolchain()}),
        "doctor.json": _json([asdict(need) for need in doctor()]),
        "attached.json": _json(asdict(listing)),
        "device.log": str(device.pop("log", "")),
        "device.json": _json({**device, "unreachable": unreachable}),
        **_newest_run(str(device.get("name", name))),
    }
    contents = {file: _bounded(clean(text).encode()) for file, text in report.items() if text}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in contents.items():
            archive.writestr(file, content)
    with storage_errors(str(path)):
        write_atomically(path, zipped.getvalue())
    return BugReport(path, {file: len(content) for file, content in contents.items()}, clean(unreachable))


def _ask(name: str, access: Access) -> tuple[dict[str, Any], str]:
    """Return what the device reports about itself, and the error that cut it short, if any."""
    answers: dict[str, Any] = {}
    try:
        with resolve(name, access) as device, lock_device(device):
            serial = "" if device.identity == "host" else device.identity
            answers |= {"name": device.name, "serial": serial, "described": device.describe()}
            try:
                with device.connect() as client:
                    hello, state = client.hello(), client.state()
                answers |= {"hello": hello.model_dump(), "state": state.model_dump()}
            finally:
                answers["log"] = device.read_log()
    except BlocktimeError as error:
        return answers, str(error)
    return answers, ""


def _newest_run(device_name: str) -> dict[str, str]:
    """Return the files of the device's newest run, if there is one."""
    try:
        runs = [path for path in runs_root().iterdir() if f"-{device_name}-" in f"-{path.name}"]
        newest = max(runs, key=lambda path: path.stat().st_mtime)
        files = [newest / "journal.jsonl", newest / "models.json"]
        return {f"run/{file.name}": file.read_text(errors="replace") for file in files if file.exists()}
    except (OSError, ValueError):
        return {}


def _cleaner(serials: list[str]) -> Callable[[str], str]:
    """Return a function that replaces tokens, serial numbers and home folders in a text."""
    secrets = {os.environ.get(TOKEN_VARIABLE, ""): "<token>", str(Path.home()): "~"}
    for number, serial in enumerate(dict.fromkeys(filter(None, serials)), 1):
        secrets |= {serial: f"<serial {number}>", serial.replace("-", ""): f"<serial {number}>"}

    def clean(text: str) -> str:
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, secrets[secret])
        return _HOMES.sub("~", _TOKEN.sub("<token>", text))

    return clean


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _bounded(content: bytes) -> bytes:
    if len(content) <= MAX_FILE_BYTES:
        return content
    cut = b"\n... cut ...\n"
    half = (MAX_FILE_BYTES - len(cut)) // 2
    return content[:half] + cut + content[-half:]


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Show the cache of exported models, and make room.

    Exported models are in $BLOCKTIME_CACHE (default: blocktime in the XDG cache folder). The models of this
    machine's agents are always in the XDG cache folder, and --keep removes them too. Everything can be made
    again. Entries that were used within the last hour are not removed.
    """

    keep: int | None = option(
        None,
        "Remove the least recently used entries until at most this is left: 5GB, 500MB, or 0.",
        flag="--keep --trim",
        parse=partial(parse_bytes, zero=True),
        metavar="SIZE",
    )


def cache(options: CacheOptions, progress: Progress = silent) -> Table:
    """Make room in the caches, and return their contents by kind.

    Raises:
        StorageError: an entry can't be removed.
    """
    if options.keep is not None:
        _trim(options.keep, progress)
    columns = (
        Column("kind", "content"),
        Column("entries", "entries"),
        Column("megabytes", "MB", 1),
        Column("last_used", "last used"),
        Column("folder", "folder"),
    )
    rows, entries = [], _entries()
    for kind, folder in _folders().items():
        own = [entry for entry in entries if entry.kind == kind]
        size, used = sum(entry.payload_bytes for entry in own), max((e.used for e in own), default=None)
        rows.append(
            {
                "kind": kind,
                "folder": str(folder),
                "entries": len(own),
                "payload_bytes": size,
                "used": used,
                "megabytes": size / 1e6,
                "last_used": datetime.fromtimestamp(used).isoformat(" ", "minutes") if used else "",
            }
        )
    total = sum(entry.payload_bytes for entry in entries)
    return Table(f"{total / 1e6:.1f} MB in caches", columns, rows)


def _trim(max_bytes: int, progress: Progress) -> None:
    """Remove the least recently used entries until at most `max_bytes` are left, except those in use."""
    entries = sorted(_entries(), key=lambda entry: (entry.used, str(entry.path)))
    left, now = sum(entry.payload_bytes for entry in entries), time.time()
    removed, in_use = [], 0
    for entry in entries:
        if left <= max_bytes:
            break
        if now - entry.used < IN_USE_S:
            in_use += 1
            continue
        try:
            _remove(entry.path)
        except OSError as error:
            raise StorageError(
                f"cannot remove {entry.path}: {error.strerror}; remove it by hand", code="cannot_remove"
            ) from error
        left -= entry.payload_bytes
        removed.append(entry.payload_bytes)
    progress(Note(f"{len(removed):,} removed, {sum(removed) / 1e6:.1f} MB"))
    if in_use:
        progress(Note(f"{in_use:,} more were used within the last hour and stay"))


class _CacheEntry(NamedTuple):
    """A file or folder that can be made again; `used` is its last use, in seconds of the epoch."""

    kind: str
    path: Path
    payload_bytes: int
    used: float


def _folders() -> dict[str, Path]:
    cache = ArtifactCache()
    return {
        "exported models": cache.models,
        "lowered parts": cache.fragments,
        "unfinished": cache.pending,
        "models of this machine's agents": default_store_dir("host").parent,
    }


def _entries() -> list[_CacheEntry]:
    entries = []
    for kind, folder in _folders().items():
        for path in folder.glob("agent-store-*/*" if "agents" in kind else "*"):
            # another process may remove it meanwhile
            with contextlib.suppress(FileNotFoundError):
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                size = sum(file.stat().st_size for file in files)
                entries.append(_CacheEntry(kind, path, size, path.stat().st_mtime))
    return entries


def _remove(path: Path) -> None:
    """Remove a file or folder; a folder is renamed first, so that it is never left incomplete."""
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir():
            path = path.rename(path.with_name(f".removed-{uuid.uuid4().hex}"))
            shutil.rmtree(path)
        else:
            path.unlink()

"""Bug reports: versions, device state, log and newest journal in one zip without secrets."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import BlocktimeError
from luts.format.files import check_writable, storage_error, write_atomically
from luts.format.provenance import __version__
from orchestrator.agent.agent import TOKEN_VARIABLE
from orchestrator.devices.common.device import Access, Device
from orchestrator.devices.discover import list_attached, resolve
from orchestrator.devices.lock import lock_device
from orchestrator.export.artifacts.spec import toolchain
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.doctor import doctor

MAX_FILE_BYTES = 1 << 20
"""Limit of each file before compression; of longer ones the beginning and the end are kept."""

_TOKEN = re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{32}(?![0-9a-fA-F])")
"""Tokens of agents; sha256 digests are twice as long."""
_HOMES = re.compile(r"/(?:home|Users)/[^/\s\"']+|/root(?=[/\s\"']|$)")


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
    try:
        write_atomically(path, _zipped(contents))
    except OSError as error:
        raise storage_error(str(path), error) from error
    return BugReport(path, {file: len(content) for file, content in contents.items()}, clean(unreachable))


def _ask(name: str, access: Access) -> tuple[dict[str, Any], str]:
    """Return what the device reports about itself, and the error that cut it short, if any."""
    answers: dict[str, Any] = {}
    try:
        with resolve(name, access) as device, lock_device(device):
            serial = "" if device.identity == "host" else device.identity
            answers |= {"name": device.name, "serial": serial, "described": device.describe()}
            try:
                answers |= _greeted(device)
            finally:
                answers["log"] = device.read_log()
    except BlocktimeError as error:
        return answers, str(error)
    return answers, ""


def _greeted(device: Device) -> dict[str, Any]:
    with device.connect() as client:
        hello, state = client.hello(), client.state()
    return {"hello": hello.model_dump(), "state": state.model_dump()}


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


def _zipped(contents: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in contents.items():
            archive.writestr(file, content)
    return whole.getvalue()

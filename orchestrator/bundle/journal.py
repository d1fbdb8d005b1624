"""What an agent did with a bundle: one JSON object a line, each with a digest of itself and all before it.

A line is `{"chain":"H","record":R}`: H is the SHA-256, in 64 hex digits, of the H of the line before (for the first
of the bundle's digest) followed by the bytes of R. Whoever edits a line by hand breaks the chain. A last line that
has no newline was being written when the agent was ended; it does not count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from luts.format.errors import InvalidArtifactError
from luts.format.line_file import LineFile

MAX_LINE_BYTES = 64 << 20
MAX_JOURNAL_BYTES = 8 << 30

_HEAD, _MIDDLE, _TAIL = b'{"chain":"', b'","record":', b"}\n"
_BODY = len(_HEAD) + 64 + len(_MIDDLE)


class BundleJournal:
    """The journal that an agent writes; what it holds already is in `records`.

    Raises:
        InvalidArtifactError: it is damaged, or belongs to another bundle.
        BlocktimeError: another process writes it, or the disk is full.
    """

    def __init__(self, path: Path, bundle_digest: str):
        self.path = path
        self.records: list[dict[str, Any]] = []
        self._chain = bundle_digest
        self._file = LineFile(
            path,
            self._scan,
            writers="another agent",
            elsewhere="give another --journal",
            again="run the bundle again, it goes on",
        )

    def _scan(self) -> int:
        self.records, self._chain, good = _read(self.path, self._chain)
        return good

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record and wait until it is on the disk."""
        body = json.dumps(record, separators=(",", ":")).encode()
        chain = _link(self._chain, body)
        self._file.append(_HEAD + chain.encode() + _MIDDLE + body + _TAIL)
        self._chain = chain
        self.records.append(dict(record))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read_journal(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The digest of the bundle that a journal belongs to, and its records.

    Raises:
        InvalidArtifactError: it can't be read, is no such journal, or a line of it was changed.
    """
    records, _, _ = _read(path, None)
    if not records:
        raise InvalidArtifactError(f"{path} is not a journal of a bundle: it holds no record")
    return str(records[0]["bundle"]), records


def _read(path: Path, bundle_digest: str | None) -> tuple[list[dict[str, Any]], str, int]:
    """Records, the last link, and the offset behind them."""
    records: list[dict[str, Any]] = []
    chain, good, number = bundle_digest or "", 0, 0
    try:
        if path.stat().st_size > MAX_JOURNAL_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_JOURNAL_BYTES >> 30} GiB is not a journal of a bundle"
            )
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:
                    break
                record = _decode(line)
                if not records and (record or {}).get("kind") == "bundle":
                    began = str((record or {}).get("bundle"))
                    if bundle_digest not in (None, began):
                        raise InvalidArtifactError(
                            f"{path} belongs to another bundle; give another --journal, or move it away"
                        )
                    chain = began
                elif not records:
                    raise InvalidArtifactError(f"{path} is not a journal of a bundle")
                chain = _link(chain, line[_BODY : -len(_TAIL)])
                if record is None or line[len(_HEAD) : len(_HEAD) + 64] != chain.encode():
                    raise InvalidArtifactError(
                        f"{path}: line {number} was changed or damaged, its digest is not the agent's; "
                        "take the file as the agent left it"
                    )
                records.append(record)
                good += len(line)
    except OSError as error:
        raise InvalidArtifactError(f"{path}: cannot be read ({error.strerror})") from error
    return records, chain, good


def _link(chain: str, body: bytes) -> str:
    return hashlib.sha256(chain.encode() + body).hexdigest()


def _decode(line: bytes) -> dict[str, Any] | None:
    if not (
        line.startswith(_HEAD) and line[_BODY - len(_MIDDLE) : _BODY] == _MIDDLE and line.endswith(_TAIL)
    ):
        return None
    try:
        record = json.loads(line[_BODY : -len(_TAIL)])
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None

"""What an agent did with a bundle: one JSON object a line, each with a digest of itself and all before it.

A line is `{"chain":"H","record":R}`: H is the SHA-256, in 64 hex digits, of the H of the line before (for the first
of the bundle's digest) followed by the bytes of R. Whoever edits a line by hand breaks the chain. A last line that
has no newline was being written when the agent was ended; it does not count."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError, first_problem
from luts.format.files import LineFile
from luts.format.schema import Sha256, Value
from orchestrator.bundle.archive import MAX_TEXT_BYTES, Order, Slot
from orchestrator.bundle.stopping import Ending
from orchestrator.wire.client import RunResult
from orchestrator.wire.messages import ErrorBody, HelloReply, LoadReply, RunReply

Number = Annotated[int, Field(ge=0, lt=100_000)]
Reply = dict[str, Any]
"""As the agent sent it, without its id."""


class Opening(Value):
    """First record: the bundle's digest, its manifest and its plan."""

    kind: Literal["bundle"]
    bundle: Sha256
    manifest: Annotated[str, Field(max_length=MAX_TEXT_BYTES)]
    plan: Annotated[str, Field(max_length=MAX_TEXT_BYTES)]


class Start(Value):
    """The agent was started, and said hello."""

    kind: Literal["start"]
    hello: Reply

    def reply(self) -> HelloReply:
        """The greeting as a value; ValidationError where it is none."""
        return HelloReply.model_validate({**self.hello, "id": 0})


class Batch(Value):
    """A batch was begun, for the first time or again."""

    kind: Literal["batch"]
    batch: Number
    pass_index: Number
    group: Number


class Loading(Value):
    """A model is about to be loaded."""

    kind: Literal["loading"]
    sha256: Sha256


class Load(Value):
    """A model was loaded, or refused."""

    kind: Literal["load"]
    slot: Slot
    sha256: Sha256
    reply: Reply

    def result(self) -> LoadReply | ErrorBody:
        """The reply as a value; ValidationError where it is none."""
        if "error" in self.reply:
            return ErrorBody.model_validate(self.reply["error"])
        return LoadReply.model_validate({**self.reply, "id": 0})


class Ran(Value):
    """Rounds were run: the slots that they visited, the reply, and its payload in base64."""

    kind: Literal["run"]
    order: Order
    reply: Reply
    samples: str

    def result(self) -> RunResult:
        """The reply as a value; ValidationError or ValueError where it is none."""
        try:
            raw = base64.b64decode(self.samples, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        reply = RunReply.model_validate({**self.reply, "id": 0, "payload": len(raw)})
        visits = len(self.order[0]) if self.order else 0
        if (
            not visits
            or any(len(row) != visits for row in self.order)
            or len(raw) != 8 * len(self.order) * visits
        ):
            raise ValueError("its samples are not as many as its visits")
        samples = np.frombuffer(raw, dtype=">u8").astype(np.int64).reshape(len(self.order), visits)
        return RunResult(samples, reply.state_before, reply.state_after, reply.warmed)


class End(Value):
    """A batch was ended: `done`, `hot`, or an error.

    By `worked_s`, the seconds that it took, and `logs`, midmeans of the log ratios to the reference by digest
    where it is done, the agent decides whether to go on. Nothing else comes from them.
    """

    kind: Literal["end"]
    batch: Number
    ended: Annotated[str, Field(max_length=4096)]
    again: bool
    worked_s: Annotated[float, Field(ge=0)] = 0.0
    logs: Mapping[Sha256, float] = Field(default_factory=dict)


class Failed(Value):
    """A model is left out from now on."""

    kind: Literal["failed"]
    sha256: Sha256
    reason: Annotated[str, Field(max_length=4096)]


class Finished(Value):
    """No batch is left to be run, and why: those of further passes are not begun where there is enough."""

    kind: Literal["done"]
    ended: Ending = "passes"


BundleRecord = Opening | Start | Batch | Loading | Load | Ran | End | Failed | Finished
_RECORD: TypeAdapter[BundleRecord] = TypeAdapter(Annotated[BundleRecord, Field(discriminator="kind")])


def parse_records(path: Path, documents: Iterable[Mapping[str, Any]]) -> list[BundleRecord]:
    """Validate a journal's records; `InvalidArtifactError` says what is wrong with one."""
    try:
        return [_RECORD.validate_python(document) for document in documents]
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: a record does not fit ({first_problem(error)}); take agent and bench of one version"
        ) from None


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


@dataclass
class Done:
    """What a journal says has been done.

    Attributes:
        begun: How often each batch was begun.
        over: Batches that are not begun again.
        failed: Models that are left out, by digest, with the reason.
        deaths: How often the agent was ended while it loaded a model.
        greeting: The first hello's reply.
        loads: Midmeans of the log ratios of each model's loads in batches that are done, by digest...
        worked_s: ...and seconds of all batches that ended.
        loading: The model that was being loaded when the last record was written.
    """

    begun: Counter[int] = field(default_factory=Counter)
    over: set[int] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    greeting: Mapping[str, Any] | None = None
    finished: bool = False
    loads: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    worked_s: float = 0.0
    loading: str = ""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Done:
        """What the records of a journal say."""
        done = cls()
        for record in records:
            done.add(record)
        return done

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in the next record."""
        match record["kind"]:
            case "start":
                self.greeting = self.greeting or record["hello"]
                if self.loading:
                    self.deaths[self.loading] += 1
            case "batch":
                self.begun[record["batch"]] += 1
            case "end":
                self._end(record)
            case "failed":
                self.failed[record["sha256"]] = record["reason"]
            case "done":
                self.finished = True
        self.loading = record["sha256"] if record["kind"] == "loading" else ""

    def _end(self, record: Mapping[str, Any]) -> None:
        if not record["again"]:
            self.over.add(record["batch"])
        self.worked_s += record.get("worked_s", 0.0)
        for digest, log in record.get("logs", {}).items():
            self.loads[digest].append(log)

    def wants(self, batch: int, attempts: int) -> bool:
        """Whether a batch is to be begun, for the first time or again."""
        return batch not in self.over and self.begun[batch] < attempts

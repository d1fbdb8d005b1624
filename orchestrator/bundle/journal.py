"""The journal that an agent leaves of a bundle: one JSON object a line, chained by digests.

A line is `{"chain":"H","record":R}`: H is the SHA-256, in 64 hex digits, of the H of the line before (for the first
line, of the bundle's digest) followed by the bytes of R. Editing a line by hand breaks the chain.
PROTOCOL.md, "Bundles", defines the format; the agents in Kotlin and Swift write it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError, first_problem
from luts.format.files import read_lines
from luts.format.schema import Sha256, Value
from orchestrator.bundle.archive import MAX_TEXT_BYTES, RoundOrders, SlotIndex
from orchestrator.wire.client import RunResult
from orchestrator.wire.messages import ErrorBody, HelloReply, LoadReply, RunReply

Number = Annotated[int, Field(ge=0, lt=100_000)]
Reply = dict[str, Any]
"""A reply as the agent sent it, without its id."""

BundleEnding = Literal["narrow", "budget", "passes"]
"""Why a bundle ended: every model's interval is narrow enough, time is up, or all passes are done."""


class BundleHeader(Value):
    """First record: the bundle's digest, its manifest and its plan."""

    kind: Literal["bundle"]
    bundle: Sha256
    manifest: Annotated[str, Field(max_length=MAX_TEXT_BYTES)]
    plan: Annotated[str, Field(max_length=MAX_TEXT_BYTES)]


class AgentStart(Value):
    """The agent started; `hello` is its reply to the first request."""

    kind: Literal["start"]
    hello: Reply

    def reply(self) -> HelloReply:
        """Return the validated hello; raises ValidationError."""
        return HelloReply.model_validate({**self.hello, "id": 0})


class BatchStart(Value):
    """A batch starts, for the first time or again."""

    kind: Literal["batch"]
    batch: Number
    pass_index: Number
    group: Number


class LoadStart(Value):
    """The next request loads this model."""

    kind: Literal["loading"]
    sha256: Sha256


class LoadRecord(Value):
    """A model was loaded, or its load failed."""

    kind: Literal["load"]
    slot: SlotIndex
    sha256: Sha256
    reply: Reply

    def result(self) -> LoadReply | ErrorBody:
        """Return the validated reply or error; raises ValidationError."""
        if "error" in self.reply:
            return ErrorBody.model_validate(self.reply["error"])
        return LoadReply.model_validate({**self.reply, "id": 0})


class RunRecord(Value):
    """Rounds that were run: slots in the order of their calls, the reply, and the samples in base64."""

    kind: Literal["run"]
    order: RoundOrders
    reply: Reply
    samples: str

    def result(self) -> RunResult:
        """Return the validated reply with its samples [rounds, calls]; raises ValueError (or ValidationError)."""
        try:
            raw = base64.b64decode(self.samples, validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
        reply = RunReply.model_validate({**self.reply, "id": 0, "payload": len(raw)})
        calls = {len(row) for row in self.order}
        if len(calls) != 1 or calls == {0} or len(raw) != 8 * len(self.order) * min(calls):
            raise ValueError("the number of samples is not the number of calls")
        samples = np.frombuffer(raw, dtype=">u8").astype(np.int64).reshape(len(self.order), -1)
        return RunResult(samples, reply.state_before, reply.state_after, reply.warmed)


class BatchEnd(Value):
    """A batch ended.

    Attributes:
        ended: `done`, `hot`, or an error.
        again: Whether the agent repeats the batch.
        worked_s: Seconds that the batch took.
        logs: Of a batch that is done, midmeans of each model's log ratios to the reference, by digest. The agent
            decides by them whether to continue; nothing else uses them.
    """

    kind: Literal["end"]
    batch: Number
    ended: Annotated[str, Field(max_length=4096)]
    again: bool
    worked_s: Annotated[float, Field(ge=0)] = 0.0
    logs: Mapping[Sha256, float] = Field(default_factory=dict)


class ModelFailure(Value):
    """A model is excluded from now on."""

    kind: Literal["failed"]
    sha256: Sha256
    reason: Annotated[str, Field(max_length=4096)]


class BundleEnd(Value):
    """Last record: the bundle is finished."""

    kind: Literal["done"]
    ended: BundleEnding = "passes"


BundleRecord = (
    BundleHeader
    | AgentStart
    | BatchStart
    | LoadStart
    | LoadRecord
    | RunRecord
    | BatchEnd
    | ModelFailure
    | BundleEnd
)
_RECORD: TypeAdapter[BundleRecord] = TypeAdapter(Annotated[BundleRecord, Field(discriminator="kind")])

_HEAD, _MIDDLE, _TAIL = b'{"chain":"', b'","record":', b"}\n"
_BODY = len(_HEAD) + 64 + len(_MIDDLE)

_REMEDY = "use the file as the agent left it"


def chained_line(chain: str, record: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return the digest and the line of a record that follows a line with the digest `chain`."""
    body = json.dumps(record, separators=(",", ":")).encode()
    chain = _next_digest(chain, body)
    return chain, _HEAD + chain.encode() + _MIDDLE + body + _TAIL


def read_journal(path: Path) -> tuple[str, list[BundleRecord]]:
    """Return the digest of the bundle that a journal belongs to, and the journal's records.

    Raises:
        InvalidArtifactError: The file is unreadable, not such a journal, of another version, or was edited.
    """
    documents: list[dict[str, Any]] = []
    chain = ""

    def accept(line: bytes) -> bool:
        nonlocal chain
        document = _decode(line)
        if not documents:
            digest = None if document is None or document.get("kind") != "bundle" else document.get("bundle")
            if digest is None or not str(digest).isascii():
                raise _not_a_journal(path)
            chain = str(digest)
        chain = _next_digest(chain, line[_BODY : -len(_TAIL)])
        if document is None or line[len(_HEAD) : len(_HEAD) + 64] != chain.encode():
            raise InvalidArtifactError(
                f"{path}: line {len(documents) + 1} was edited or damaged (its digest is wrong); {_REMEDY}",
                code="edited_journal",
            )
        documents.append(document)
        return True

    read_lines(path, accept, _REMEDY)
    if not documents:
        raise _not_a_journal(path)
    return str(documents[0]["bundle"]), _parse(path, documents)


def _not_a_journal(path: Path) -> InvalidArtifactError:
    return InvalidArtifactError(f"{path} is not a journal of a bundle; {_REMEDY}", code="not_a_journal")


def _parse(path: Path, documents: Iterable[Mapping[str, Any]]) -> list[BundleRecord]:
    try:
        return [_RECORD.validate_python(document) for document in documents]
    except ValidationError as error:
        raise InvalidArtifactError(
            f"{path}: invalid record ({first_problem(error)}); use the same version of agent and bench",
            code="invalid_file",
        ) from None


def _next_digest(chain: str, body: bytes) -> str:
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

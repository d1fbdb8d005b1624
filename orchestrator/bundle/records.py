"""What a bundle's journal holds, as values; every record of a file that others sent is validated here."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError
from luts.format.messages import first_problem
from luts.format.values import Sha256, Value
from orchestrator.bundle.archive import MAX_TEXT_BYTES
from orchestrator.bundle.script import Order, Slot
from orchestrator.bundle.stopping import Ending
from orchestrator.wire.client import RunResult
from orchestrator.wire.replies import ErrorBody, HelloReply, LoadReply, RunReply

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

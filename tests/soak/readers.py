"""Readers of untrusted data, each with a few valid inputs from the project's own writers.

An input is a byte of flags and content. The flags say which file of several the content replaces (`FILE`), and
whether digests are computed again over what was changed (`SEALED`), so that damage gets past them.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import json
import math
import random
import shutil
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ValidationError

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.schema import LutMeta
from luts.format.store import LutRef, LutStore
from luts.share.location import Folder, Location
from luts.share.repository import Repository, pull
from orchestrator.wire.client import AgentClient
from orchestrator.wire.frames import decode_header, encode_header, read_frame
from orchestrator.wire.messages import REPLIES, REQUESTS
from tests.soak.mutations import mutate_bytes, mutate_json, mutate_text, mutate_zip

SEALED, FILE = 0x80, 0x7F
STATE = {
    "uptime_ns": 1, "load_average_1m": 0.5, "steal_ms": 0, "thermal_state": "nominal", "thermal_headroom": None,
    "cpus": [{"cpu": 0, "mhz": 1800.0, "max_mhz": 2000.0, "governor": "performance"}],
    "thermal_zones": [{"name": "cpu", "celsius": 40.5}], "throttle_count": None,
    "battery": {"percent": 80.0, "charging": True, "celsius": 30.0}, "low_power_mode": None,
    "free_memory_bytes": 1 << 30, "agent_memory_bytes": 1 << 20, "qos": None, "foreground": None,
}  # fmt: skip
"""A device's state as an agent sends it."""


class Reader(ABC):
    """A reader with valid inputs, in an empty folder of its own.

    Attributes:
        corpus: Valid inputs.
        first_alone_is_read: Whether all valid inputs but the first are refusals, such as an agent's errors.
    """

    corpus: list[bytes]
    first_alone_is_read: ClassVar[bool] = False

    def __init__(self, folder: Path, kept: Path) -> None:
        """Make valid inputs; those that take long to make are kept in `kept` for later seeds."""
        self.folder, self.kept = folder, kept
        self.make()

    @abstractmethod
    def make(self) -> None:
        """Make the corpus."""

    @abstractmethod
    def read(self, data: bytes) -> str:
        """Read an input; return what is wrong with accepting it, or an empty string.

        Raises:
            BlocktimeError: The input is refused.
        """

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Return a damaged input: damaged bytes, or other values within its structure."""
        flags, content = data[0] if data else 0, data[1:]
        if rng.random() < 0.3:
            flags ^= SEALED
        if rng.random() < 0.35:
            return bytes([flags]) + mutate_bytes(content, rng, [other[1:] for other in self.corpus])
        return bytes([flags]) + self.mutate_content(flags & FILE, content, rng)

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return content with other values within its structure; JSON by default."""
        del file
        return mutate_json(content, rng)


def split_frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers and payloads of a stream; the last payload may be cut off."""
    frames = []
    while len(data) >= 4:
        size = int.from_bytes(data[:4], "big")
        raw, rest = data[4 : 4 + size], data[4 + size :]
        try:
            payload = max(0, int(json.loads(raw).get("payload", 0)))
        except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
            payload = 0
        frames.append((raw, rest[:payload]))
        data = rest[payload:]
    return frames


def mutate_frames(data: bytes, rng: random.Random) -> bytes:
    """Return a stream with another header in one of its frames, whose length is right."""
    frames = split_frames(data)
    if not frames:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(frames))
    raw, payload = frames[at]
    frames[at] = mutate_json(raw, rng), payload
    if rng.random() < 0.1:
        frames.insert(rng.randrange(len(frames)), rng.choice(frames))
    return b"".join(len(raw).to_bytes(4, "big") + raw + payload for raw, payload in frames)


SHA = "ab" * 32
REQUEST_HEADERS: tuple[tuple[dict[str, Any], bytes], ...] = (
    ({"id": 1, "op": "hello", "protocol": 1, "token": "a token"}, b""),
    ({"id": 2, "op": "have", "sha256": SHA}, b""),
    ({"id": 3, "op": "put", "sha256": hashlib.sha256(b"a model").hexdigest()}, b"a model"),
    ({"id": 4, "op": "load", "sha256": SHA, "runtime": "executorch", "options": {"threads": 2}}, b""),
    ({"id": 5, "op": "placement", "handle": 1, "heartbeat_s": 10}, b""),
    ({"id": 6, "op": "check", "handle": 1, "inputs": [{"dtype": "float32", "shape": [1, 2]}]}, bytes(8)),
    ({"id": 7, "op": "run", "handles": [1, 2], "order": [[0, 1], [1, 0]], "warmup": 1, "pace_us": 0}, b""),
    ({"id": 8, "op": "unload", "handle": 1}, b""),
    ({"id": 9, "op": "state"}, b""),
)  # fmt: skip
REPLY_HEADERS: tuple[tuple[dict[str, Any], bytes], ...] = (
    (
        {
            "id": 1, "protocol": 1, "heartbeat": True, "timed_warmup": True, "heartbeat_ops": ["load", "placement"],
            "pace": True, "keep_warm": True, "agent": {"name": "blocktime", "version": "1"},
            "device": {"model": "a", "os": "b", "os_build": None, "soc": None, "cores": 8, "memory_bytes": 1 << 33},
            "runtimes": {
                "executorch": {
                    "version": "1", "backends": ["XnnpackBackend"],
                    "options": {"threads": {"type": "int", "default": 1, "min": 1, "max": 8}},
                }
            },
        },
        b"",
    ),
    ({"id": 2, "present": False}, b""),
    ({"id": 3, "bytes": 7}, b""),
    (
        {
            "id": 4, "handle": 1, "load_ns": 5, "options": {"threads": 1}, "delegates": None, "placement": None,
            "inputs": [{"dtype": "float32", "shape": [1, 2]}], "outputs": [{"dtype": "float32", "shape": [1]}],
        },
        b"",
    ),
    (
        {
            "id": 5,
            "placement": {
                "cpu": 1, "gpu": 0, "neural_engine": 0,
                "operations": [{"name": "a", "type": "conv", "unit": "cpu", "cost": 0.5}],
            },
        },
        b"",
    ),
    ({"id": 6, "outputs": [{"dtype": "float32", "shape": [1]}]}, bytes(4)),
    ({"id": 7, "running": 3}, b""),
    (
        {
            "id": 7, "rounds": 2, "visits": 2, "state_before": STATE, "state_after": STATE,
            "warmed": {"ns": 5, "rounds": 2, "steady": True},
        },
        b"".join(number.to_bytes(8, "big") for number in (1000, 2000, 3000, 4000)),
    ),
    ({"id": 8, "state": STATE}, b""),
    ({"id": 9}, b""),
)  # fmt: skip
"""What an agent answers to the conversation of `ClientReader`."""


def stream_of(frames: Sequence[tuple[dict[str, Any], bytes]]) -> bytes:
    """Return frames as bytes."""
    return b"".join(encode_header(header, len(payload)) + payload for header, payload in frames)


class FrameReader(Reader):
    """Frames and the schemas of requests and replies; what is read is written and read again."""

    def make(self) -> None:
        """Make a stream of each frame, and one of all."""
        frames = [*REQUEST_HEADERS, *REPLY_HEADERS]
        self.corpus = [b"\0" + stream_of(part) for part in (frames, *([frame] for frame in frames))]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a stream with another header."""
        del file
        return mutate_frames(content, rng)

    def read(self, data: bytes) -> str:
        """Read all frames."""
        stream = io.BytesIO(data[1:])
        while (frame := read_frame(stream)) is not None:
            header, payload = frame
            content = payload.read()
            op = header.get("op")
            kinds = [REQUESTS[op]] if isinstance(op, str) and op in REQUESTS else [*REPLIES.values()]
            for kind in kinds:
                with contextlib.suppress(ValidationError):
                    kind.model_validate(header)
            bare = {name: value for name, value in header.items() if name != "payload"}
            written = bare | ({"payload": len(content)} if content else {})
            if decode_header(encode_header(bare, len(content))[4:]) != written:
                return "a header is not the same when it is written again"
        return ""


class _Socket:
    """The client's end of a connection whose other end has sent some bytes and closed."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, mode: str) -> io.BytesIO:
        del mode
        return io.BytesIO(self._received)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_: 60.0


class ClientReader(Reader):
    """The client's conversation with an agent that answers anything."""

    first_alone_is_read = True

    def make(self) -> None:
        """Make the replies to one conversation, and an error in place of each."""
        self.model = self.folder / "model.pte"
        self.model.write_bytes(b"a model")
        self.corpus = [b"\0" + stream_of(REPLY_HEADERS)]
        for at, (header, _) in enumerate(REPLY_HEADERS):
            error = {"id": header["id"], "error": {"code": "run_failed", "message": "no"}}
            self.corpus.append(
                b"\0" + stream_of([*REPLY_HEADERS[:at], (error, b""), *REPLY_HEADERS[at + 1 :]])
            )

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return replies with another header."""
        del file
        return mutate_frames(content, rng)

    def read(self, data: bytes) -> str:
        """Greet, send a model, load it, place it, check it, time it, ask for the state and leave."""
        client = AgentClient(_Socket(data[1:]), "token", clock_s=lambda: 0.0)  # type: ignore[arg-type]
        client.hello()
        client.ensure(self.model)
        loaded = client.load(hashlib.sha256(b"a model").hexdigest(), "executorch")
        client.placement(loaded.handle)
        outputs = client.check(loaded.handle, [np.zeros((1, 2), np.float32)])
        result = client.run([loaded.handle, loaded.handle], [[0, 1], [1, 0]], warmup_ms=5)
        client.state()
        client.bye()
        if result.samples.shape != (2, 2) or any(array.dtype.hasobject for array in outputs):
            return "samples or outputs of another shape"
        return ""


class LutReader(Reader):
    """The four files of a LUT, one of them damaged."""

    def make(self) -> None:
        """Make a small LUT."""
        from luts.format.lut import MAX_FILE_BYTES, decode, encode

        self.files = encode(_small_lut())
        self.lut, self.names = decode(self.files), list(MAX_FILE_BYTES)
        self.corpus = [
            bytes([at | seal]) + self.files[name]
            for at, name in enumerate(self.names)
            for seal in (0, SEALED)
        ]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return other values of lut.json, other cells of a table, or other samples."""
        name = self.names[file % len(self.names)]
        if name.endswith(".json"):
            return mutate_json(content, rng, (",", ": "), indent=2) + b"\n"
        return mutate_text(content, rng) if name.endswith(".csv") else mutate_bytes(content, rng)

    def read(self, data: bytes) -> str:
        """Read a LUT and predict its reference; without a seal it must be the undamaged one."""
        from luts.format.lut import decode, encode

        flags = data[0] if data else 0
        files = {**self.files, self.names[(flags & FILE) % len(self.names)]: data[1:]}
        if flags & SEALED:
            files["lut.json"] = _sealed_meta(files)
        lut = decode(files)
        if not flags & SEALED:
            return "" if lut == self.lut else "a changed LUT is accepted"
        encode(lut)
        predicted = lut.predict(self.lut.models[0].blocks, 0)
        return "" if math.isfinite(predicted.ms) else f"a prediction of {predicted.ms} ms"


@functools.cache
def _small_lut() -> Any:
    from tests.support.lut_world import small_study

    return small_study(designs=3, segments=2, rounds=4).lut()


def _sealed_meta(files: dict[str, bytes]) -> bytes:
    """Return lut.json with the right digests, where it is an object at all."""
    from luts.format.lut import _DIGESTED, _canonical

    try:
        document = json.loads(files["lut.json"])
        document["sha256"] = {
            field: hashlib.sha256(files[name]).hexdigest() for field, name in _DIGESTED.items()
        }
        document.pop("digest", None)
        document["digest"] = hashlib.sha256(_canonical(document)).hexdigest()
        return _canonical(document)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return files["lut.json"]


class MemoryLocation(Location):
    """A repository in memory, which is only read."""

    def __init__(self, files: dict[str, bytes], listed: bool) -> None:
        """Hold files by path."""
        super().__init__("memory", writable=False, listed=listed)
        self._files = files

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the content of a file, as any location does."""
        content = self._files.get(path)
        if content is not None and len(content) > limit:
            raise InvalidArtifactError("too large", code="too_large")
        return content

    def names(self, folder: str) -> list[str]:
        """Return the paths in a folder."""
        return [name for name in self._files if name.startswith(folder)]

    def replace(self, path: str, content: bytes) -> None:
        """Fail: a reader does not write."""
        raise AssertionError(path)

    _create = replace


class UnwrittenStore(LutStore):
    """An empty store that keeps what would be written."""

    written: dict[str, bytes]

    def list(self) -> list[LutRef]:
        """Return nothing."""
        return []

    def write_files(self, meta: LutMeta, files: Mapping[str, bytes]) -> Path:
        """Keep a LUT's files."""
        del meta
        self.written = dict(files)
        return Path()


class SharedReader(Reader):
    """A repository of shared LUTs, one of its files damaged; listed as a folder, or read from its index alone."""

    def make(self) -> None:
        """Push a LUT to a folder."""
        from luts.format.lut import encode

        Repository(Folder("made", self.folder), print).push(encode(_small_lut()), b"s" * 64)
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self.files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}
        self.names = list(self.files)
        self.corpus = [bytes([at]) + content for at, content in enumerate(self.files.values())]

    def mutate(self, data: bytes, rng: random.Random) -> bytes:
        """Return another version of the same file, or of another one: there is nothing to seal."""
        flags = (data[0] if data else 0) & FILE
        if rng.random() < 0.3:
            return bytes([flags]) + mutate_bytes(data[1:], rng, [other[1:] for other in self.corpus])
        if self.names[flags % len(self.names)].endswith(".json"):
            return bytes([flags]) + mutate_json(data[1:], rng)
        return bytes([flags]) + mutate_text(data[1:], rng)

    def read(self, data: bytes) -> str:
        """List and pull; what is pulled must be what was pushed."""
        flags = (data[0] if data else 0) & FILE
        files = {**self.files, self.names[flags % len(self.names)]: data[1:]}

        problems, refused = [], None
        for listed in (True, False):
            store = UnwrittenStore([self.folder])
            place = Repository(MemoryLocation(files, listed), lambda _: None)
            try:
                pull(place, "host", store, verify=False)
            except BlocktimeError as error:
                refused = error
                continue
            pushed = {name.rpartition("/")[2]: content for name, content in self.files.items()}
            if any(store.written[name] != pushed[name] for name in ("lut.json", "entries.csv", "models.csv")):
                problems.append("another LUT than the one that was pushed is pulled")
        if refused is not None and not problems:
            raise refused
        return "; ".join(problems)


class JournalReader(Reader):
    """A journal of a measurement; each line has a CRC."""

    def make(self) -> None:
        """Write a journal with a record of each kind."""
        from orchestrator.journal.log import Journal

        self.path, self.written = self.folder / "journal.jsonl", _journal_records()
        with Journal(self.path) as journal:
            for record in self.written:
                journal.append(record)
        whole = self.path.read_bytes()
        self.corpus = [flag + whole for flag in (b"\0", bytes([SEALED]))]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a journal with another record in one of its lines."""
        del file
        lines = content.splitlines()
        if not lines:
            return content
        at = rng.randrange(len(lines))
        lines[at] = lines[at][:9] + mutate_json(lines[at][9:], rng)
        return b"\n".join(lines) + b"\n"

    def read(self, data: bytes) -> str:
        """Resume the journal and estimate; without a seal, its records must be among those that were written."""
        from orchestrator.journal.log import JournalSamples, MeasurementLog, read_log, read_records

        sealed, content = bool(data[:1] and data[0] & SEALED), data[1:]
        if sealed:
            bodies = [line[9:] for line in content.split(b"\n")[:-1]]
            content = b"".join(b"%08x %s\n" % (zlib.crc32(body), body) for body in bodies)
        self.path.write_bytes(content)
        if not sealed and any(record not in self.written for record in read_records(self.path)):
            return "a changed record is accepted"
        records = read_log(self.path)
        JournalSamples(records).table()
        with MeasurementLog(self.path, records[0]) as log:  # type: ignore[arg-type]
            log.open_batch()
            log.failures()
            for batch in log.closed_batches():
                log.longest_segment(batch)
                log.overheats(batch)
            estimates = log.estimation()
        del estimates
        return ""


def _journal_records() -> list[dict[str, Any]]:
    identity = {
        "device_model": "a", "soc": "b", "os": "c", "os_build": "d", "agent": "e", "runtime": "f",
        "variant": "executorch-xnnpack-fp32-t1", "plan": "g", "policy": {"rounds": 4},
        "artifacts": {"reference": SHA, "m1": "cd" * 32},
    }  # fmt: skip
    header = {
        "kind": "header", "format": 1, "identity": identity, "reference_id": "reference", "seed": 1,
        "created": "2026-01-01T00:00:00+00:00", "simulated": True,
    }  # fmt: skip
    records: list[dict[str, Any]] = [header]
    records.append({"kind": "decision", "settle_runs": 0, "batch_models": 4, "reason": "quiet"})
    rng = np.random.default_rng(0)
    for batch in range(2):
        order = [[0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]]
        ns = (1e6 * (1 + rng.random((4, 3)) / 50)).astype("<i8")
        records += [
            {
                "kind": "batch", "batch": batch, "segment": 0, "pass_index": batch, "group": 0, "attempt": 0,
                "slots": ["reference", "reference", "m1"], "copies": [0, 1, 0], "load_ns": [1, 2, 3],
            },
            {
                "kind": "chunk", "batch": batch, "segment": 0, "first_round": 0, "settle_runs": 0, "order": order,
                "ns": base64.b64encode(ns.tobytes()).decode(), "state_before": STATE, "state_after": STATE,
            },
            {"kind": "end", "batch": batch, "kept": True, "reason": "", "aa": [0.0, -0.1, 0.1]},
        ]  # fmt: skip
    records.append({"kind": "failure", "model": "m1", "reason": "refused"})
    records.append({"kind": "placement", "model": "m1", "operations": [["conv", "cpu"]]})
    chosen = {"model": "m2", "arch": "{}", "artifact": SHA}
    records.append(
        {"kind": "choice", "pass_index": 2, "models": [chosen], "half_width": 0.1, "reason": "wide"}
    )
    return records


class BundleReader(Reader):
    """The journal that an agent leaves of a bundle, as `bench import` reads it, or the bundle's manifest."""

    def make(self) -> None:
        """Run a small bundle on a simulated device, unless an earlier seed has."""
        from orchestrator.bundle.journal import read_journal

        whole = self.kept / "bundle.jsonl"
        if not whole.exists():
            _run_bundle(self.kept, whole)
        self.path = self.folder / "journal.jsonl"
        content = whole.read_bytes()
        self.digest, self.records = read_journal(whole)
        manifest = json.loads(content.splitlines()[0])["record"]["manifest"].encode()
        self.corpus = [b"\0" + content, bytes([SEALED]) + content, b"\1" + manifest]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a journal with another record in one of its lines, or another manifest."""
        lines = content.splitlines()
        if file == 1 or not lines:
            return mutate_json(content, rng)
        at = rng.randrange(len(lines))
        lines[at] = lines[at][:85] + mutate_json(lines[at][85:-1], rng) + b"}"
        return b"\n".join(lines) + b"\n"

    def read(self, data: bytes) -> str:
        """Read a journal up to its samples; without a seal it must be a beginning of the undamaged one."""
        from orchestrator.bundle.archive import parse_manifest
        from orchestrator.bundle.journal import read_journal
        from orchestrator.tasks.bundle import _read

        flags, content = data[0] if data else 0, data[1:]
        if flags & FILE == 1:
            parse_manifest(content, self.path)
            return ""
        if flags & SEALED:
            content = _sealed_chain(content)
        self.path.write_bytes(content)
        digest, records = read_journal(self.path)
        if not flags & SEALED and (digest, records) != (self.digest, self.records[: len(records)]):
            return "a changed journal is accepted"
        pending = _read(self.path, None)
        log = self.folder / "log.jsonl"
        log.unlink(missing_ok=True)
        pending.replay.measure(log, "2026-01-01T00:00:00+00:00")
        return ""


def _run_bundle(folder: Path, journal: Path) -> None:
    import os

    from orchestrator.export.artifacts.spec import Variant
    from orchestrator.tasks.bundle import BundleCommand, bundle
    from orchestrator.tasks.plan import PlanOptions
    from tests.support.bundle_world import POLICY, run

    os.environ["BLOCKTIME_CACHE"] = str(folder / "cache")
    command = BundleCommand(
        space="autovit-nano",
        kind="linux",
        output=folder / "nano.bundle",
        fixed_variant=Variant("simulated", "", threads=1),
        plan=PlanOptions(design=12, heldout=2, removals="none"),
        policy=POLICY,
    )
    bundle(command)
    run(folder / "nano.bundle", folder).rename(journal)


def _sealed_chain(content: bytes) -> bytes:
    """Return a journal of a bundle with the right digests."""
    chain, lines = "", []
    for line in content.split(b"\n")[:-1]:
        body = line[85:-1]
        if not lines:
            with contextlib.suppress(ValueError, AttributeError, RecursionError):
                chain = str(json.loads(body).get("bundle"))
        chain = hashlib.sha256(chain.encode(errors="replace") + body).hexdigest()
        lines.append(b'{"chain":"%s","record":%s}\n' % (chain.encode(), body))
    return b"".join(lines)


class CheckpointReader(Reader):
    """A supernet's checkpoint: its description, or its tensors."""

    def make(self) -> None:
        """Write a checkpoint with a few tensors."""
        import torch

        from luts.format.provenance import CodeVersion
        from search.spaces import get_space
        from search.supernet.model.weights_file import tensors_digest
        from search.supernet.train.checkpoint import CheckpointInfo, write_checkpoint
        from tests.support.training import TINY

        space = get_space("autovit-nano")
        self.tensors = {
            "weights/a": torch.arange(6.0).reshape(2, 3),
            "moments/a": torch.ones(2, dtype=torch.int64),
        }
        fields = {
            "step": 2, "steps_per_epoch": 2, "recipe": TINY, "source": "digits", "data_digest": SHA,
            "code": CodeVersion(package="1", commit=None, sources=SHA), "space": space.name,
            "space_digest": space.digest, "classes": ("0", "1"), "loss": 0.5, "split_seed": 0,
            "split_fraction": 0.1, "image_side": 8, "weights_sha256": tensors_digest(self.tensors),
            "scaler": {"scale": 2.0},
        }  # fmt: skip
        self.info = write_checkpoint(self.folder, CheckpointInfo, fields, {"supernet": self.tensors})
        self.names = ["checkpoint.json", self.info.tensors]
        self.files = {name: (self.folder / name).read_bytes() for name in self.names}
        self.corpus = [
            bytes([at | seal]) + self.files[name]
            for at, name in enumerate(self.names)
            for seal in (0, SEALED)
        ]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return another description, or tensors with another header."""
        if file % 2 == 0:
            return mutate_json(content, rng)
        return mutate_safetensors(content, rng)

    def read(self, data: bytes) -> str:
        """Read a checkpoint and overwrite tensors by it; without a seal it must be the undamaged one."""
        import torch

        from search.supernet.model.weights_file import copy_into
        from search.supernet.train.checkpoint import read_info, read_tensors

        flags = data[0] if data else 0
        files = {**self.files, self.names[(flags & FILE) % 2]: data[1:]}
        if flags & SEALED:
            files["checkpoint.json"] = _sealed_info(files["checkpoint.json"], files[self.info.tensors])
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        info = read_info(self.folder)
        tensors = read_tensors(self.folder, info, "supernet")
        targets = {name: torch.zeros_like(value) for name, value in self.tensors.items()}
        copy_into(targets, tensors, "other tensors")
        same = all(torch.equal(targets[name], value) for name, value in self.tensors.items())
        return "" if flags & SEALED or (info == self.info and same) else "a changed checkpoint is accepted"


def _sealed_info(content: bytes, tensors: bytes) -> bytes:
    from search.supernet.train.checkpoint import _digest

    try:
        document = json.loads(content)
        document.pop("sha256", None)
        document["tensors_sha256"] = hashlib.sha256(tensors).hexdigest()
        return json.dumps(document | {"sha256": _digest(document)}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return content


def mutate_safetensors(content: bytes, rng: random.Random) -> bytes:
    """Return a safetensors file with another header, whose length is right, or other data."""
    size = int.from_bytes(content[:8], "little")
    header = mutate_json(content[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


class WeightsReader(Reader):
    """Weights of a network: a safetensors file, pickled tensors, or stored logits of a teacher."""

    def make(self) -> None:
        """Write weights of a linear layer, pickled in both formats of torch, and two batches of logits."""
        import torch
        from safetensors.torch import save

        from search.supernet.model.weights_file import tensors_digest
        from search.supernet.train.teacher import LabelHeader, _layout

        self.model = torch.nn.Linear(3, 2)
        state = self.model.state_dict()
        self.labels = LabelHeader(teacher=SHA, data=SHA, images=SHA, classes=10, top_k=2, steps=2, batch=4)
        logits = {
            name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in _layout(self.labels).items()
        }
        heading = {"header": self.labels.model_dump_json(), "sha256": tensors_digest(logits)}
        pickles = []
        for modern in (True, False):
            out = io.BytesIO()
            torch.save(state, out, _use_new_zipfile_serialization=modern)
            pickles.append(out.getvalue())
        files = [save(state), *pickles, save(logits, heading)]
        self.suffixes = [".safetensors", ".pth", ".pth", ".labels"]
        self.corpus = [bytes([at]) + content for at, content in enumerate(files)]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return another header, or another entry of the zip that holds pickled tensors."""
        if file % 4 == 1:
            return mutate_zip(content, rng)
        return mutate_bytes(content, rng) if file % 4 == 2 else mutate_safetensors(content, rng)

    def read(self, data: bytes) -> str:
        """Load weights into the layer, or logits."""
        from search.supernet.model.weights_file import read_weights
        from search.supernet.train.teacher import _load_state, _read

        suffix = self.suffixes[(data[0] if data else 0) & 3]
        path = self.folder / f"weights{suffix}"
        path.write_bytes(data[1:])
        if suffix == ".labels":
            _read(path, self.labels)
            return ""
        if suffix == ".safetensors":
            read_weights(path)
        _load_state(self.model, "timm:linear", path, None)
        return ""


class ArchitectureReader(Reader):
    """An architecture's JSON."""

    def make(self) -> None:
        """Write architectures of several spaces."""
        from search.spaces import get_space

        self.path, self.corpus, rng = self.folder / "arch.json", [], random.Random(0)
        for name in ("autovit-nano", "mobilevit", "efficientvit", "nasbench-macro"):
            with contextlib.suppress(BlocktimeError):
                arch = get_space(name).sample(rng)
                self.corpus.append(b"\0" + json.dumps(arch.to_document()).encode())

    def read(self, data: bytes) -> str:
        """Read an architecture and its blocks; written and read again it must be the same."""
        from search.spaces import arch_from_json, load_arch

        self.path.write_bytes(data[1:])
        arch = load_arch(str(self.path))
        arch.keys()
        arch.params()
        return (
            ""
            if arch_from_json(json.dumps(arch.to_document())) == arch
            else "it is not the same when written again"
        )


class RecipeReader(Reader):
    """A recipe of a training."""

    def make(self) -> None:
        """Write the recipes of the package and one with all parts as TOML."""
        from search.supernet.recipe.recipe import RECIPES

        self.path = self.folder / "mine.toml"
        texts = [path.read_text() for path in sorted(RECIPES.glob("*.toml"))]
        extending = (
            'extends = "default"\nepochs = 3\nlearning_rate = 0.1\n[augmentation]\nmixup = 0.2\nerase = 0.1\n'
        )
        self.corpus = [b"\0" + text.encode() for text in (extending, *texts)]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a recipe with another value in one of its lines."""
        del file
        return mutate_text(content, rng)

    def read(self, data: bytes) -> str:
        """Read a recipe, and the part of a space that it trains."""
        from search.spaces import get_space
        from search.supernet.recipe.recipe import Recipe, get_recipe, scope_of

        self.path.write_bytes(data[1:])
        recipe = get_recipe(str(self.path))
        rates = [recipe.learning_rate_at(step, 10) for step in (0, 10 * recipe.epochs - 1)]
        if Recipe.model_validate_json(recipe.model_dump_json()) != recipe:
            return "it is not the same when written again"
        if not all(0 <= rate <= 1 for rate in rates):
            return f"learning rates of {rates}"
        with contextlib.suppress(UsageError):  # most recipes are for other spaces
            scope_of(recipe, get_space("autovit-nano"))
        return ""


class ProgramReader(Reader):
    """A .pte: the agent's summary, and the operators of its delegates."""

    def make(self) -> None:
        """Export a small network, unless an earlier seed has."""
        if not (self.kept / "tiny.pte").exists():
            from tests.support.tiny_model import export_tiny

            export_tiny(self.kept)
        self.path = self.folder / "model.pte"
        self.corpus = [b"\0" + (self.kept / "tiny.pte").read_bytes()]

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a program with another word in place of an offset, a length or a number."""
        del file
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = 4 * rng.randrange(max(1, len(content) // 4))
            old = int.from_bytes(content[at : at + 4], "little")
            new = rng.choice(
                (
                    old + 1,
                    old - 1,
                    old + 4,
                    old - 4,
                    old << 8,
                    0,
                    1,
                    2**31 - 1,
                    2**32 - 1,
                    rng.randrange(4096),
                )
            )
            content = content[:at] + (new & 2**32 - 1).to_bytes(4, "little") + content[at + 4 :]
        return content

    def read(self, data: bytes) -> str:
        """Read the summary, then the operators."""
        from orchestrator.agent.runtime import read_pte
        from orchestrator.export.lower.operators import read_operators

        self.path.write_bytes(data[1:])
        with contextlib.suppress(ValueError):  # that is how `read_pte` refuses
            read_pte(self.path)
        read_operators(self.path)
        return ""


class ZipReader(Reader):
    """A packed Core ML package, an .ipa, or an .npz of images."""

    def make(self) -> None:
        """Write one of each."""
        from PIL import Image

        from orchestrator.export.artifacts.artifact import pack
        from tests.support.fake_iphone import package as write_ipa

        model = self.folder / "made" / "model.mlpackage"
        (model / "Data").mkdir(parents=True)
        (model / "Manifest.json").write_text("{}")
        (model / "Data" / "weight.bin").write_bytes(bytes(200))
        pack(model, self.folder / "one.mlpackage.zip")
        write_ipa(self.folder / "one.ipa", devices=["00008101-000000000000001E"])
        images = []
        for shade in range(4):
            out = io.BytesIO()
            Image.new("RGB", (8, 8), (shade, 0, 0)).save(out, "PNG")
            images.append(out.getvalue())
        arrays = {
            "blob": np.frombuffer(b"".join(images), np.uint8),
            "off": np.cumsum([0, *map(len, images)]),
            "y": np.arange(4) % 2,
        }
        np.savez(self.folder / "one.npz", allow_pickle=False, **arrays)
        shutil.rmtree(model)
        self.names = ["one.mlpackage.zip", "one.ipa", "one.npz"]
        self.corpus = [bytes([at]) + (self.folder / name).read_bytes() for at, name in enumerate(self.names)]
        self.corpus[1] = b"\1" + _without_padding(self.corpus[1][1:])

    def mutate_content(self, file: int, content: bytes, rng: random.Random) -> bytes:
        """Return a zip with another entry."""
        del file
        return mutate_zip(content, rng)

    def read(self, data: bytes) -> str:
        """Unpack or read it; nothing may be written outside of the target."""
        from orchestrator.devices.iphone.device import read_ipa
        from orchestrator.export.artifacts.artifact import deliver
        from search.supernet.data.sources import open_npz

        name = self.names[(data[0] if data else 0) % 3]
        path, target = self.folder / name, self.folder / "out" / "model.mlpackage"
        path.write_bytes(data[1:])
        if name == "one.ipa":
            read_ipa(path)
            return ""
        if name == "one.npz":
            open_npz(f"npz:{path}", path).image(0)
            return ""
        shutil.rmtree(target.parent, ignore_errors=True)
        refused: BlocktimeError | None = None
        try:
            deliver(path, target)
        except BlocktimeError as error:
            refused = error
        outside = {each.name for each in self.folder.iterdir()} - {*self.names, "made", "out"}
        outside |= {each.name for each in target.parent.iterdir()} - {target.name}
        if refused is not None and not outside:
            raise refused
        return f"{min(outside)} was written outside of the package" if outside else ""


def _without_padding(ipa: bytes) -> bytes:
    """Return an .ipa without its large program, which only makes inputs long."""
    from tests.soak.mutations import zipped

    with zipfile.ZipFile(io.BytesIO(ipa)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/Bench")]
        return zipped([(name, archive.read(name)) for name in names])


READERS: dict[str, type[Reader]] = {
    "frames": FrameReader,
    "replies to the client": ClientReader,
    "LUT files": LutReader,
    "shared LUTs": SharedReader,
    "journals": JournalReader,
    "journals of bundles": BundleReader,
    "checkpoints": CheckpointReader,
    "weights": WeightsReader,
    "architectures": ArchitectureReader,
    "recipes": RecipeReader,
    "programs": ProgramReader,
    "zips": ZipReader,
}

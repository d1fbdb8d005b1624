"""Readers of journals: of a run, and of an agent that ran a bundle."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tests.soak.mutations import mutate_json
from tests.soak.reader import FILE, SEALED, SHA, STATE, Reader


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

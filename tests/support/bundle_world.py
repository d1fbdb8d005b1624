"""A bundle, and the journal that an agent leaves of it: a small player for a simulated device.

The real players are in Kotlin and Swift; tests/agents/test_bundles.py runs them.
"""

from __future__ import annotations

import base64
import json
import socket
import tarfile
from pathlib import Path
from typing import Any

from luts.format.table import Facts
from orchestrator.agent.agent import LOOPBACK
from orchestrator.agent.store import ModelStore
from orchestrator.bundle.archive import MANIFEST, MODELS, PLAN, SCRIPT
from orchestrator.bundle.journal import chained_line
from orchestrator.export.artifacts.spec import Variant
from orchestrator.plan.plan import Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.device import Scenario
from orchestrator.tasks.bundle import BundleCommand, bundle
from orchestrator.tasks.plan import PlanOptions
from orchestrator.wire.frames import encode_header, read_frame
from tests.support.agent_programs import digest
from tests.support.served_agent import serving

DEVICE = Scenario(name="simulated", noise_seed=3)
OTHER = Scenario(name="another", noise_seed=4)
POLICY = Policy(
    batch_models=9,
    warmup=1,
    warmup_ms=0,
    settle_runs=0,
    cooling_s=0.0,
    min_rounds=10,
    max_rounds=10,
    min_passes=2,
    max_passes=2,
)


def make_bundle(path: Path) -> Facts:
    """Write a bundle of a few networks, for a simulated device, and return facts about it."""
    return bundle(
        BundleCommand(
            space="autovit-nano",
            kind="linux",
            output=path,
            fixed_variant=Variant("simulated", "", threads=1),
            plan=PlanOptions(design=14, heldout=3, removals="none"),
            policy=POLICY,
        )
    )


class BundlePlayer:
    """Runs all rounds of all batches of a bundle; nothing fails and nothing is hot."""

    def __init__(self, bundle: Path, journal: Path) -> None:
        with tarfile.open(bundle) as tar:
            self.files = {member.name: tar.extractfile(member).read() for member in tar}
        self.script = json.loads(self.files[SCRIPT])
        self.chain = digest(self.files[MANIFEST])
        self.journal = journal.open("wb")

    def write(self, kind: str, **fields: Any) -> None:
        self.chain, line = chained_line(self.chain, {"kind": kind, **fields})
        self.journal.write(line)

    def ask(self, op: str, payload: bytes = b"", **fields: Any) -> tuple[dict[str, Any], bytes]:
        self.sock.sendall(encode_header({"id": 1, "op": op, **fields}, len(payload)) + payload)
        header, body = read_frame(self.stream)
        assert "error" not in header, header
        return {name: value for name, value in header.items() if name not in ("id", "payload")}, body.read()

    def run(self, port: int, token: str) -> None:
        with socket.create_connection((LOOPBACK, port)) as self.sock, self.sock.makefile("rb") as self.stream:
            hello, _ = self.ask("hello", protocol=1, token=token)
            texts = {
                name: self.files[file].decode() for name, file in (("manifest", MANIFEST), ("plan", PLAN))
            }
            self.write("bundle", bundle=self.chain, **texts)
            self.write("start", hello=hello)
            for number, batch in enumerate(self.script["batches"]):
                self.batch(number, batch)
            self.write("done", ended="passes")
        self.journal.close()

    def batch(self, number: int, batch: dict[str, Any]) -> None:
        self.write("batch", batch=number, pass_index=batch["pass_index"], group=batch["group"])
        handles = {}
        for slot in batch["loading"]:
            sha256 = batch["slots"][slot]
            if not self.ask("have", sha256=sha256)[0]["present"]:
                self.ask("put", self.files[MODELS + sha256], sha256=sha256)
            self.write("loading", sha256=sha256)
            reply, _ = self.ask("load", sha256=sha256, **self.script["load"], placement=batch["placement"])
            self.write("load", slot=slot, sha256=sha256, reply=reply)
            handles[slot] = reply["handle"]
        for index, order in enumerate(batch["orders"]):
            fields = self.script["run"] | ({"warmup": 0} if index else {})
            every = [handles[slot] for slot in sorted(handles)]
            reply, samples = self.ask("run", handles=every, order=order, **fields)
            self.write("run", order=order, reply=reply, samples=base64.b64encode(samples).decode())
        for handle in handles.values():
            self.ask("unload", handle=handle)
        self.write("end", batch=number, ended="done", again=False, worked_s=1.0, logs={})


def run(bundle: Path, folder: Path, scenario: Scenario = DEVICE) -> Path:
    """Run a bundle on a simulated device and return the journal."""
    journal = folder / f"{scenario.name}.jsonl"
    agent = simulated_agent(scenario, "token", ModelStore(folder / f"store-{scenario.name}"))
    with serving(agent) as port:
        BundlePlayer(bundle, journal).run(port, agent.token)
    return journal

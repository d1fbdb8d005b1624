"""Runs a bundle against the agent in this process, into its journal first; the phones' apps do the same.

PROTOCOL.md, «Bundles», says what every agent does; this is its text as a program.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.bundle.archive import FIRST_MODEL, Bundle, ScriptBatch
from orchestrator.bundle.journal import BundleJournal, Done
from orchestrator.bundle.loopback import Header, Loopback
from orchestrator.bundle.stopping import BatchRatios, Ending, ending
from orchestrator.wire.errors import DeviceError
from orchestrator.wire.messages import PROTOCOL_VERSION

_REFUSED = ("bad_model", "run_failed")
"""Errors of a load that say that the model will never run here."""

_clock, _sleep = time.monotonic, time.sleep


class Player:
    """Runs the batches of a bundle that its journal does not have yet."""

    def __init__(
        self,
        bundle: Bundle,
        journal: BundleJournal,
        agent: Loopback,
        token: str,
        tell: Callable[[str], None],
    ):
        self._bundle, self._journal, self._agent, self._token = bundle, journal, agent, token
        self._tell = tell
        self._script, self._rules = bundle.script, bundle.script.rules
        self._done = Done()

    def run(self) -> None:
        """Run what is left.

        Raises:
            InvalidArtifactError: a model of the bundle is damaged, or it is for another kind of device.
            BlocktimeError: the journal was begun under other conditions.
            DeviceError: the device did not get ready in time; run it again to go on.
        """
        hello, _ = self._agent.ask({"op": "hello", "protocol": PROTOCOL_VERSION, "token": self._token})
        runtime = self._script.load.runtime
        if runtime not in hello["runtimes"]:
            raise InvalidArtifactError(
                f"{self._bundle.path} is for {self._bundle.manifest.device_kind}: "
                f"this agent has no runtime {runtime}"
            )
        self._done = Done.of(self._journal.records)
        if self._done.finished:
            return
        if self._done.greeting not in (None, hello):
            raise BlocktimeError(
                f"{self._journal.path} was begun with another version of agent or system; give another --journal"
            )
        if not self._journal.records:
            self._write(
                {
                    "kind": "bundle",
                    "bundle": self._bundle.digest,
                    "manifest": self._bundle.manifest_text.decode(),
                    "plan": self._bundle.plan.decode(),
                }
            )
        self._write({"kind": "start", "hello": hello})
        ended = "passes"
        for number, batch in enumerate(self._script.batches):
            if ending := self._ending(number):
                ended = ending
                break
            while self._done.wants(number, self._rules.attempts):
                self._tell(self._where(number))
                self._batch(number, batch)
        self._write({"kind": "done", "ended": ended})

    def _ending(self, number: int) -> Ending | None:
        """Why the pass that a batch is the first of is not made; None where it is, or was begun already."""
        batches = self._script.batches
        passes = batches[number].pass_index
        if not number or passes == batches[number - 1].pass_index or self._done.begun[number]:
            return None
        models = {
            digest for batch in batches for digest in batch.slots[FIRST_MODEL:]
        } - self._done.failed.keys()
        return ending(self._script.stop, passes, self._done.loads, models, self._done.worked_s)

    def _where(self, number: int) -> str:
        batches, stop = self._script.batches, self._script.stop
        passes = batches[-1].pass_index + 1
        fewest = f"{stop.min_passes} to " if stop and stop.min_passes < passes else ""
        return (
            f"batch {number + 1} of {len(batches)}, pass {batches[number].pass_index + 1} of {fewest}{passes}, "
            f"{self._done.worked_s / 60:.0f} min so far"
        )

    def _write(self, record: Mapping[str, Any]) -> None:
        self._journal.append(record)
        self._done.add(record)

    def _batch(self, number: int, batch: ScriptBatch) -> None:
        self._write({"kind": "batch", "batch": number, "pass_index": batch.pass_index, "group": batch.group})
        start_s = _clock()
        self._cool_down()
        handles: dict[int, int] = {}
        ratios = BatchRatios()
        try:
            for slot in batch.loading:
                if batch.slots[slot] not in self._done.failed:
                    self._load(slot, batch, handles)
            ended = (
                self._run(batch, handles, ratios)
                if {0, 1} <= handles.keys()
                else "the reference can't be loaded"
            )
        finally:
            for handle in handles.values():
                self._agent.try_ask({"op": "unload", "handle": handle})
        again = ended == "hot" and self._done.begun[number] < self._rules.attempts
        end = {"kind": "end", "batch": number, "ended": ended, "again": again, "worked_s": _clock() - start_s}
        logs = {batch.slots[slot]: log for slot, log in ratios.locations().items()} if ended == "done" else {}
        self._write(end | {"logs": logs})

    def _load(self, slot: int, batch: ScriptBatch, handles: dict[int, int]) -> None:
        digest = batch.slots[slot]
        if self._done.deaths[digest] >= self._rules.deaths:
            reason = f"the agent was ended {self._done.deaths[digest]} times while loading it"
            self._write({"kind": "failed", "sha256": digest, "reason": reason})
            return
        self._store(digest)
        self._write({"kind": "loading", "sha256": digest})
        fields = self._script.load.model_dump()
        request = {"op": "load", "sha256": digest, **fields, "placement": batch.placement}
        reply, _ = self._agent.try_ask(request)
        self._write({"kind": "load", "slot": slot, "sha256": digest, "reply": reply})
        error = reply.get("error")
        if error is None:
            handles[slot] = reply["handle"]
        elif error["code"] in _REFUSED:
            reason = f"{error['code']}: {error['message']}"
            self._write({"kind": "failed", "sha256": digest, "reason": reason})

    def _store(self, digest: str) -> None:
        if self._agent.ask({"op": "have", "sha256": digest})[0]["present"]:
            return
        offset, size = self._bundle.model(digest)
        with self._bundle.path.open("rb") as file:
            file.seek(offset)
            reply, _ = self._agent.try_ask({"op": "put", "sha256": digest}, (file, size))
        error = reply.get("error")
        if error and error["code"] == "hash_mismatch":
            raise InvalidArtifactError(
                f"{self._bundle.path}: the model {digest[:12]} is damaged; copy the bundle again"
            )
        if error:
            raise DeviceError(f"the model {digest[:12]} can't be stored: {error['message']}")

    def _run(self, batch: ScriptBatch, handles: Mapping[int, int], ratios: BatchRatios) -> str:
        """Run rounds of what was loaded until they are enough; how that ended: `done`, `hot`, or an error."""
        loaded = sorted(handles)
        fields = self._script.run.model_dump()
        for index, order in enumerate(batch.orders):
            rounds = [[slot for slot in visited if slot in handles] for visited in order]
            request = {
                "op": "run",
                "handles": [handles[slot] for slot in loaded],
                "order": [[loaded.index(slot) for slot in visited] for visited in rounds],
                **fields,
            }
            reply, samples = self._run_when_ready(request | ({"warmup": 0} if index else {}))
            if "error" in reply:
                return f"{reply['error']['code']}: {reply['error']['message']}"
            reply.pop("payload", None)
            self._write(
                {
                    "kind": "run",
                    "order": rounds,
                    "reply": reply,
                    "samples": base64.b64encode(samples).decode(),
                }
            )
            if any(self._is_hot(reply[state]) for state in ("state_before", "state_after")):
                return "hot"
            ratios.add(rounds, samples)
            self._tell(f"{ratios.rounds} rounds, noise {100 * ratios.noise():.2f} %")
            if ratios.are_enough(self._script.stop):
                break
        return "done"

    def _run_when_ready(self, request: Header) -> tuple[Header, bytes]:
        deadline_s = _clock() + self._rules.wait_s
        while True:
            reply, samples = self._agent.try_ask(request)
            if reply.get("error", {}).get("code") != "not_ready":
                return reply, samples
            message = reply["error"]["message"]
            if _clock() > deadline_s:
                raise DeviceError(f"{message}; run the bundle again, it goes on")
            self._tell(f"waiting, {message}")
            _sleep(self._rules.poll_s)

    def _cool_down(self) -> None:
        deadline_s = _clock() + self._rules.cool_s
        while _clock() < deadline_s:
            state = self._agent.ask({"op": "state"})[0]["state"]
            headroom = state.get("thermal_headroom") or 0.0
            if state.get("thermal_state") in (None, "nominal") and headroom < self._rules.cool_headroom:
                return
            self._tell("letting the device cool before the next batch")
            _sleep(self._rules.poll_s)

    def _is_hot(self, state: Mapping[str, Any]) -> bool:
        warm = state.get("thermal_state") in ("serious", "critical")
        hot = (state.get("thermal_headroom") or 0.0) >= self._rules.hot_headroom
        return (warm or hot) and "throttled" not in (state.get("caveats") or ())

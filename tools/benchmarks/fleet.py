"""Eight phones instead of one: how much faster a profile is, also with a phone lost every ten seconds, and whole.

Simulated phones that take as long as they say: nothing here keeps a processor busy but the fleet itself.
"""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import psutil

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.fleet.crew import FleetLimits
from orchestrator.fleet.units import DeviceClass
from orchestrator.journal.log import read_log
from orchestrator.journal.records import BatchRecord, EndRecord, Record, RoundsRecord
from orchestrator.simulate.device import SCENARIOS
from orchestrator.tasks.fleet import profile_fleet
from orchestrator.tasks.fleet_class import FleetProfile
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.progress import Event, Progress, silent

SPACE = "autovit-nano"
UNITS = 8
MODELS = 97
"""Batches of six and the reference: sixteen a pass, two for each of eight units."""

SLOWNESS = 4.0
"""Real seconds for a made-up one: a batch takes some eight seconds, as one of a larger network on a phone."""

KILL_S = 10.0


@dataclass(frozen=True)
class Account:
    """What a journal holds: kept batches, and (pass, model) pairs or rounds that are missing or there twice."""

    batches: int
    missing: int
    twice: int


@dataclass(frozen=True)
class Trial:
    """One profile: seconds of its passes, units that were killed, and what its journal holds."""

    units: int
    seconds: float
    killed: int
    account: Account
    made: FleetProfile


def account(records: Sequence[Record]) -> Account:
    """Whether every model was measured once in every pass, and every round of a batch once."""
    batches = {record.batch: record for record in records if isinstance(record, BatchRecord)}
    kept = [batches[end.batch] for end in records if isinstance(end, EndRecord) and end.kept]
    loads = Counter((batch.pass_index, model) for batch in kept for model in batch.slots[2:])
    passes, models = ({key[place] for key in loads} for place in (0, 1))
    rounds = Counter(
        (record.batch, record.first_round + number)
        for record in records
        if isinstance(record, RoundsRecord) and not record.rejected
        for number in range(len(record.order))
    )
    return Account(
        batches=len(kept),
        missing=len(passes) * len(models) - len(loads),
        twice=sum(count - 1 for count in (*loads.values(), *rounds.values())),
    )


def trial(
    units: int,
    folder: Path,
    *,
    models: int = MODELS,
    slowness: float = SLOWNESS,
    kill_s: float | None = None,
    watch: Progress = silent,
) -> Trial:
    """A profile of simulated phones in `folder`, of which one is killed every `kill_s` while passes are made."""
    scenario = SCENARIOS["quiet"].model_copy(update={"name": "quiet-slow", "real_time": slowness})
    path = folder / "scenario.json"
    path.write_text(scenario.model_dump_json(), encoding="utf-8")
    times: list[float] = []
    killed: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        rng = random.Random(0)
        while not ended.wait(kill_s):
            killed.extend(kill_a_unit(rng))

    def follow(event: Event) -> None:
        if str(event).startswith("pass "):
            if not times and kill_s is not None:
                threading.Thread(target=kill, daemon=True).start()
            times.append(time.monotonic())
        watch(event)

    with mock.patch.dict(os.environ, {"BLOCKTIME_RUNS": str(folder / "runs")}):
        try:
            (made,) = profile_fleet(
                SPACE,
                (DeviceClass(f"simulated:{path}", units),),
                PlanChoice(models=models),
                budget_s=0,
                self_test=False,
                limits=FleetLimits(rest_s=1.0),
                store=LutStore([folder / "luts"]),
                progress=follow,
            )
        finally:
            ended.set()
    verify_lut(made.profile.path)
    seen = account(read_log(made.profile.folder / "journal.jsonl"))
    return Trial(units, times[-1] - times[0], len(killed), seen, made)


def kill_a_unit(rng: random.Random) -> list[int]:
    """Ends the process of one actor at random, and with it the agent that it started; nobody is told."""
    actors = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "UnitActor" in " ".join(process.cmdline()):
                actors.append(process)
    for process in rng.sample(actors, min(1, len(actors))):
        process.kill()
    return [process.pid for process in actors[:1]]


def main() -> str:
    """One phone, eight, and eight of which one is killed every ten seconds."""
    trials = []
    for units, kill_s in ((1, None), (UNITS, None), (UNITS, KILL_S)):
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            trials.append(trial(units, Path(folder), kill_s=kill_s))
    rates = [one.account.batches / one.seconds for one in trials]
    rows = [
        f"| {one.units} | {one.killed} | {one.account.batches} | {one.seconds:.0f} "
        f"| {rate / rates[0]:.1f} | {one.account.missing} | {one.account.twice} |"
        for one, rate in zip(trials, rates, strict=True)
    ]
    return f"""## Fleets

{UNITS} units bring {rates[1] / rates[0]:.1f} times the throughput of one: they wait for each other at the end of a
pass. One profile a row, so there is no interval.

A profile of {MODELS} networks of `{SPACE}` in three passes on simulated phones, which take {SLOWNESS:g} real
seconds for a made-up one and leave processors idle. In the third row the process that drives a phone, and the
phone's agent with it, is killed every {KILL_S:.0f} s; a unit is started anew a second later. Throughput is in kept
batches a second, beside one phone's. Missing and twice count networks in a pass, and rounds of a batch, in the
journal; `bench lut verify` accepts all three LUTs.

| units | killed | batches | seconds | throughput | missing | twice |
|---:|---:|---:|---:|---:|---:|---:|
{chr(10).join(rows)}
"""

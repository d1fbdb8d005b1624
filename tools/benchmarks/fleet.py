"""How much faster eight phones make a profile than one, also when one is lost every ten seconds.

Simulated phones sleep for as long as they report, so only the fleet itself uses the processor.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import psutil

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.fleet.executor import FleetLimits
from orchestrator.fleet.units import DeviceClass
from orchestrator.journal.log import read_log
from orchestrator.journal.records import BatchRecord, EndRecord, Record, RoundsRecord
from orchestrator.simulate.device import SCENARIOS
from orchestrator.tasks.fleet import FleetCommand, FleetProfile, profile_fleet
from orchestrator.tasks.plan import PlanOptions
from orchestrator.tasks.progress import Event, Progress, silent
from tools.tables import Tables

SPACE = "autovit-nano"
UNITS = 8
MODELS = 97
"""Batches of six and the reference: sixteen a pass, two for each of eight units."""

SLOWNESS = 4.0
"""Real seconds per simulated second: a batch takes about eight seconds, as of a larger network on a phone."""

KILL_S = 10.0


@dataclass(frozen=True)
class Account:
    """Contents of a journal: kept batches, and (pass, model) pairs or rounds that are missing or recorded twice."""

    batches: int
    missing: int
    twice: int


def account(records: Sequence[Record]) -> Account:
    """Count whether every model was measured once in every pass, and every round of a batch once."""
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
) -> tuple[Account, FleetProfile, dict[str, object]]:
    """Profile simulated phones in `folder`, killing one every `kill_s` seconds during the passes.

    Returns the contents of the journal, the profile, and the benchmark's row.
    """
    scenario = SCENARIOS["quiet"].model_copy(update={"name": "quiet-slow", "real_time": slowness})
    path = folder / "scenario.json"
    path.write_text(scenario.model_dump_json(), encoding="utf-8")
    times: list[float] = []
    killed: list[int] = []
    ended, rng = threading.Event(), random.Random(0)

    def kill() -> None:
        while not ended.wait(kill_s):
            killed.extend(kill_a_unit(rng))

    def follow(event: Event) -> None:
        if str(event).startswith("pass "):
            if not times and kill_s is not None:
                threading.Thread(target=kill, daemon=True).start()
            times.append(time.monotonic())
        watch(event)

    command = FleetCommand(
        space=SPACE,
        devices=(DeviceClass(f"simulated:{path}", units),),
        plan=PlanOptions(models=models),
        budget_s=0,
        self_test=False,
        limits=FleetLimits(rest_s=1.0),
        store=LutStore([folder / "luts"]),
    )
    with mock.patch.dict(os.environ, {"BLOCKTIME_RUNS": str(folder / "runs")}):
        try:
            (made,) = profile_fleet(command, follow)
        finally:
            ended.set()
    verify_lut(made.profile.path)
    seen, seconds = account(read_log(made.profile.folder / "journal.jsonl")), times[-1] - times[0]
    row = {"units": units, "killed": len(killed), "seconds": seconds, **asdict(seen)}
    return seen, made, row | {"batches a second": seen.batches / seconds}


def kill_a_unit(rng: random.Random) -> list[int]:
    """Kill the process of a random actor, and with it the agent that it started; return its id, if there is one."""
    actors = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "UnitActor" in " ".join(process.cmdline()):
                actors.append(process)
    killed = rng.sample(actors, min(1, len(actors)))
    for process in killed:
        process.kill()
    return [process.pid for process in killed]


def main() -> Tables:
    """Profile with one phone, eight phones, and eight of which one is killed every ten seconds.

    Batches are those that were kept; `missing` and `twice` count networks of a pass and rounds of a batch in the
    journal. One profile per row, so there are no intervals.
    """
    rows = []
    for units, kill_s in ((1, None), (UNITS, None), (UNITS, KILL_S)):
        with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
            rows.append(trial(units, Path(folder), kill_s=kill_s)[2])
    return {"Fleets": rows}

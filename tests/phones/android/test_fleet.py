"""One fleet of Android phones, the host's three agents and simulated phones, with losses."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.fleet.executor import FleetLimits
from orchestrator.fleet.units import DeviceClass
from orchestrator.journal.log import read_log
from orchestrator.journal.records import BatchRecord
from orchestrator.simulate.device import SCENARIOS
from orchestrator.tasks.fleet import FleetCommand, FleetTarget, profile_fleet
from orchestrator.tasks.plan import PlanOptions
from tests.support.agent_programs import require_built
from tools.benchmarks.fleet import account, kill_a_unit

PLAN = PlanOptions(design=10, heldout=3, removals="none")
"""Three batches a pass."""


@pytest.fixture
def home(home, monkeypatch):
    """Folders of this process and of Ray's."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    require_built("swift")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return home


def simulated(folder: Path) -> str:
    """Return simulated phones that take as long as they report, so that losses occur while they work."""
    path = folder / "scenario.json"
    slow = SCENARIOS["quiet"].model_copy(update={"name": "quiet-slow", "real_time": 1.0})
    path.write_text(slow.model_dump_json(), encoding="utf-8")
    return f"simulated:{path}"


@pytest.mark.slow
def test_nothing_is_lost_or_measured_twice(home, attach_kotlin_phone, tmp_path):
    said: list[str] = []
    killed: list[int] = []
    rng = random.Random(4)
    first, second = attach_kotlin_phone("first"), attach_kotlin_phone("second")
    apk = tmp_path / "app.apk"
    apk.write_bytes(b"an app")
    pulled = threading.Event()

    def watch(event):
        said.append(str(event))
        if str(event).startswith("rack: pass 2: measuring (0/"):
            first.pull_cable()
            pulled.set()
        elif pulled.is_set() and f"{first.serial} is out" in str(event):
            first.plug_in()
        elif ": pass 2: measuring (1/" in str(event):
            killed.extend(kill_a_unit(rng))

    made = profile_fleet(
        FleetCommand(
            space="autovit-nano",
            devices=(
                DeviceClass("rack", 2, (first.serial, second.serial)),
                DeviceClass("host", 1),
                DeviceClass("host:kotlin", 1),
                DeviceClass("host:swift", 1),
                DeviceClass(simulated(home), 2),
            ),
            plan=PLAN,
            target=FleetTarget(threads=1, app=apk),
            limits=FleetLimits(rest_s=1.0),
            budget_s=0,
            self_test=False,
            store=LutStore([home / "luts"]),
        ),
        watch,
    )
    assert [one.name.partition(":")[0] for one in made] == ["rack", "host", "host", "host", "simulated"]
    assert len(killed) >= 2
    assert any(f"{first.serial} is out" in line for line in said), said
    for one in made:
        records = read_log(one.profile.folder / "journal.jsonl")
        seen = account(records)
        assert (seen.missing, seen.twice) == (0, 0), one.name
        assert seen.batches == sum(one.batches.values()) >= 9
        verify_lut(one.profile.path)
        serials = {record.unit for record in records if isinstance(record, BatchRecord)}
    assert len(serials) == (2 if one.name == "rack" or one.name.startswith("simulated") else 1)
    languages = {one.profile.lut.meta.versions.agent.split()[0] for one in made[1:4]}
    assert languages == {"blocktime-host", "blocktime-kotlin", "blocktime-swift"}

"""A fleet over Ray itself: simulated phones in processes of their own, of which one is killed."""

import json
import random
from collections import defaultdict

import pytest

from orchestrator.journal.log import read_log, unit_digest
from orchestrator.journal.records import BatchRecord
from tests.support.bench import bench
from tools.benchmarks.fleet import kill_a_unit, trial


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.slow
def test_units_share_a_profile_although_one_is_killed(tmp_path, capfd):
    messages = []

    def watch(event):
        messages.append(str(event))
        if str(event).startswith("pass 2: measuring (0/"):
            assert kill_a_unit(random.Random(1))

    account, made, _ = trial(2, tmp_path, models=12, slowness=0.0, watch=watch)
    assert (account.missing, account.twice) == (0, 0)
    assert capfd.readouterr() == ("", "")
    assert any("is out: its host was lost" in line for line in messages), messages
    lut = made.profile.lut
    records = read_log(made.profile.folder / "journal.jsonl")
    places = defaultdict(set)
    for record in records:
        if isinstance(record, BatchRecord):
            places[unit_digest(record.unit)].add((record.batch, record.segment))
    assert {unit.unit for unit in lut.meta.units} <= places.keys()
    assert all(set(unit.sessions) <= places[unit.unit] for unit in lut.meta.units)
    assert lut.meta.unit_spread.units == len(lut.meta.units) >= 1
    assert sum(made.batches.values()) == account.batches
    devices = f"simulated:{tmp_path / 'scenario.json'}=2"
    plan = ("--space", "autovit-nano", "--models", 12, "--budget", "1s", "--no-self-test")
    again = bench("fleet", "--devices", devices, *plan, "--reuse", "--luts", tmp_path / "luts", "--json")
    assert again.returncode == 0, again.stderr
    (row,) = json.loads(again.stdout)
    assert (row["path"], row["batches"]) == (str(made.profile.path), made.batches)

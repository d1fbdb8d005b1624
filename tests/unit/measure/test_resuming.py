"""A journal of an earlier version: read, and resumed if nothing else has changed.

`data/interrupted.jsonl` was written by `bench profile` at commit 10eed91, killed twice: in its second batch, which
it then continued in another segment and rejected, and in its fifth. `interrupted.plan.json` is its plan, and
`interrupted.expected.json` has that version's estimates.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.agent.store import ModelStore
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.log import JournalSamples, read_log, samples_table
from orchestrator.journal.records import BatchRecord, EndRecord, Header
from orchestrator.measure.engine import EngineOptions
from orchestrator.measure.session import measure
from orchestrator.plan.plan import Plan, Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.device import SCENARIOS, write_model
from orchestrator.tasks.exported_plan import ExportedPlan
from tests.support.errors import raises
from tests.support.served_agent import ServedDevice

DATA = Path(__file__).parent / "data"
JOURNAL = DATA / "interrupted.jsonl"
EXPECTED = json.loads((DATA / "interrupted.expected.json").read_bytes())
QUIET = SCENARIOS["quiet"]
UNEVEN = QUIET.model_copy(
    update={"name": "uneven", "noise_seed": 1, "noise": QUIET.noise.model_copy(update={"load_sd": 0.03})}
)
PLAN = TypeAdapter(Plan).validate_json((DATA / "interrupted.plan.json").read_bytes())


def served(folder, version=""):
    """A simulated device in this process whose agent calls itself `version`; the agent's own where empty."""
    agent = simulated_agent(UNEVEN, "token", ModelStore(folder))
    if version:
        info = agent.info.model_copy(update={"version": version})
        agent = dataclasses.replace(agent, info=info)
    return ServedDevice(agent)


@pytest.fixture
def journal(tmp_path):
    return Path(shutil.copy(JOURNAL, tmp_path / "journal.jsonl"))


@pytest.fixture
def files(tmp_path):
    return {model.model_id: write_model(model.blocks, tmp_path / "models") for model in PLAN.models}


def resume(device, journal, files):
    variant = Variant("simulated", "", threads=2)
    with device:
        return measure(
            device,
            variant,
            ExportedPlan(PLAN, files).model_set,
            journal,
            Policy.of(simulated=True),
            EngineOptions(budget_s=0),
        )


def version_of(journal):
    header = read_log(journal)[0]
    assert isinstance(header, Header)
    return header.identity.agent.split()[1]


def test_old_records_give_the_old_estimates():
    records = read_log(JOURNAL)
    assert [end.kept for end in records if isinstance(end, EndRecord)] == [True, False, True, True]
    assert [(b.batch, b.segment) for b in records if isinstance(b, BatchRecord)] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
        (4, 0),
    ]
    estimation = JournalSamples(records).estimation(PLAN.reference.model_id)
    quiet = estimation.quiet
    assert estimation.samples.num_rows == EXPECTED["samples"]
    assert sum(estimation.samples.column("ns").to_pylist()) == EXPECTED["ns"]
    assert estimation.ratios.keys() == EXPECTED["log_ratios"].keys()
    for name, expected in EXPECTED["log_ratios"].items():
        ratio = estimation.ratios[name]
        assert (ratio.log_ratio, ratio.low, ratio.high) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert estimation.noise_floor == pytest.approx(EXPECTED["noise_floor"], rel=1e-12)
    assert estimation.load_variance.sd == pytest.approx(EXPECTED["load_sd"], rel=1e-12)
    assert (quiet.ms, quiet.low, quiet.high) == pytest.approx(EXPECTED["quiet_ms"], rel=1e-12)


def test_old_journal_resumes(tmp_path, journal, files):
    before = journal.read_bytes()
    measurement = resume(served(tmp_path / "store", version_of(journal)), journal, files)
    assert journal.read_bytes().startswith(before)
    records = read_log(journal)
    segments = [(b.batch, b.segment) for b in records if isinstance(b, BatchRecord)]
    assert segments[:6] == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0), (4, 0)]
    table = samples_table(records)
    visits = list(zip(*(table.column(n).to_pylist() for n in ("batch", "round", "position")), strict=True))
    assert len(visits) == len(set(visits)) > EXPECTED["samples"]
    assert set(measurement.estimates.ratios) == {model.model_id for model in PLAN.models}
    assert {ratio.loads for name, ratio in measurement.estimates.ratios.items()} >= {3}
    lut = ExportedPlan(PLAN, files).lut(measurement, "simulated-uneven")
    assert lut.samples.num_rows == len(visits)
    assert verify_lut(LutStore([tmp_path / "luts"]).write(lut)) == lut


def test_another_agent_version_is_refused(tmp_path, journal, files):
    before = journal.read_bytes()
    with raises("conditions_changed") as refused:
        resume(served(tmp_path / "store"), journal, files)
    changed = str(refused.value).partition("other conditions: ")[2].partition("; samples are not mixed")[0]
    now = simulated_agent(UNEVEN, "token", ModelStore(tmp_path / "store")).info
    assert changed == f"agent (blocktime-simulated {version_of(journal)} is now {now.name} {now.version})"
    assert journal.read_bytes() == before


def test_damaged_middle_is_refused(tmp_path, journal, files):
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"first_round":0', b'"first_round":1')
    journal.write_bytes(b"".join(lines))
    with raises("damaged_file"):
        resume(served(tmp_path / "store", version_of(JOURNAL)), journal, files)

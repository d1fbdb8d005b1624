"""Past measurements, with latencies by hand."""

import csv
import json

import numpy as np
import pytest

from luts.format.errors import InvalidArtifactError
from orchestrator.journal.log import MeasurementLog
from orchestrator.journal.records import (
    BatchRecord,
    EndRecord,
    FailureRecord,
    Header,
    Identity,
    RoundsRecord,
)
from orchestrator.journal.runs import Run
from orchestrator.tasks.runs import find_past_run, past_runs, run_latencies
from orchestrator.wire.messages import DeviceState
from tests.support.bench import answer, bench
from tests.support.errors import raises
from tests.support.fake_device import QUIET

ROUNDS = 20
COOL = DeviceState.model_validate(QUIET)


def write_run(folder, created="2026-03-01T00:00:00+00:00", simulated=False, kept=(True, True, False)):
    """Batches of the reference at 2 ms, twice, and another model at 3 ms, which takes 9 ms where it is not kept."""
    files = dict.fromkeys(("ref", "other", "bad"), "0" * 64)
    identity = Identity(
        device_model="Phone",
        soc="",
        os="OS",
        os_build="7",
        agent="a 1",
        runtime="executorch 1",
        variant="executorch-xnnpack-fp32-t1",
        plan="p",
        policy={},
        artifacts=files,
    )
    header = Header(identity=identity, reference_id="ref", seed=0, created=created, simulated=simulated)
    with MeasurementLog(folder / "journal.jsonl", header) as log:
        log.append(FailureRecord(model="bad", reason="no such operator"))
        for batch, good in enumerate(kept):
            log.append(
                BatchRecord(
                    batch=batch,
                    segment=0,
                    pass_index=0,
                    group=0,
                    attempt=0,
                    slots=["ref", "ref", "other"],
                    copies=[0, 1, 0],
                    load_ns=[1, 1, 1],
                )
            )
            ns = np.tile([2_000_000, 2_000_000, 3_000_000 if good else 9_000_000], (ROUNDS, 1))
            log.append(
                RoundsRecord(
                    batch=batch,
                    segment=0,
                    first_round=0,
                    settle_runs=0,
                    order=[[0, 1, 2]] * ROUNDS,
                    ns=ns,
                    state_before=COOL,
                    state_after=COOL,
                )
            )
            log.append(EndRecord(batch=batch, kept=good, reason="" if good else "noisy", aa=[0.0, 0.0, 0.0]))
    return Run(folder)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A finished measurement of networks, and an open profile of a simulated device that began later."""
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path))
    done = write_run(tmp_path / "measure-phone-1")
    done.name_models({"ref": "timm:a", "other": "my/net.pte"})
    done.finish("measured")
    write_run(tmp_path / "phone-toy-1", "2026-03-02T00:00:00+00:00", simulated=True, kept=(True,))
    return tmp_path


def test_runs_are_listed_newest_first(root):
    runs, broken = past_runs()
    assert [(run.name, run.what, run.began[:10], run.simulated, run.result) for run in runs] == [
        ("phone-toy-1", "profile", "2026-03-02", True, None),
        ("measure-phone-1", "measure", "2026-03-01", False, "measured"),
    ]
    assert [(run.models, run.kept, run.rejected, run.failures) for run in runs] == [
        (3, 1, 0, 1),
        (3, 2, 1, 1),
    ]
    assert (runs[0].device, runs[0].os, runs[0].variant) == ("Phone", "OS 7", "executorch-xnnpack-fp32-t1")
    assert broken == {}


def test_a_run_s_latencies_by_hand(root):
    run, rows = run_latencies(find_past_run("measure-phone-1"))
    assert run.kept == 2
    assert [row.model for row in rows] == ["timm:a", "my/net.pte", "bad"]
    assert [row.ms for row in rows[:2]] == pytest.approx([2.0, 3.0])
    assert rows[1].rounds == 2 * ROUNDS
    assert rows[1].ci_low is not None
    assert rows[1].ci_high is not None
    assert rows[1].ci_low <= 3.0 <= rows[1].ci_high
    reported = rows[1].to_dict()
    assert (reported["calls"], reported["p99_ms"]) == (2 * ROUNDS, None)
    assert [reported[f"p50_{end}"] for end in ("ms", "low", "high")] == pytest.approx([3.0] * 3)
    assert reported["p90_ms"] == pytest.approx(3.0)
    assert rows[2].ms is None
    assert rows[2].failure == "no such operator"


def test_a_run_is_found_by_folder_name_and_part(root):
    by_folder = find_past_run(str(root / "phone-toy-1"))
    assert by_folder == find_past_run("phone-toy-1") == find_past_run("toy")
    with raises("ambiguous_run"):
        find_past_run("phone")
    for unknown in ("nothing", ""):
        with raises("unknown_run"):
            find_past_run(unknown)


def test_damaged_journal_is_reported_next_to_others(root):
    journal = root / "phone-toy-1" / "journal.jsonl"
    journal.write_bytes(b"x" + journal.read_bytes()[1:])
    done = bench("runs", "--json")
    assert [run["name"] for run in json.loads(done.stdout)["runs"]] == ["measure-phone-1"]
    assert "warning: run phone-toy-1 can't be read" in done.stderr
    assert (done.returncode, bench("runs", "toy").returncode) == (0, 6)
    with pytest.raises(InvalidArtifactError):
        run_latencies(find_past_run("toy"))


def test_names_that_are_damaged_are_reported(root):
    (root / "measure-phone-1" / "models.json").write_text("[1]")
    with raises("invalid_file", InvalidArtifactError):
        run_latencies(find_past_run("measure-phone-1"))


def test_command_marks_simulated_runs(root, tmp_path):
    output = answer("runs", "toy")
    assert "phone-toy-1, SIMULATED: not measured on any device" in output
    assert "bad can't be measured: no such operator" in output
    assert "SIMULATED" not in answer("runs", "measure")
    assert "simulated" in answer("runs")
    answer("runs", "measure", "-o", tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["timm:a", "my/net.pte", "bad"]


def test_no_runs_are_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "none"))
    done = bench("runs", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"runs": []})
    assert done.stderr == f"no runs in {tmp_path / 'none'}\n"

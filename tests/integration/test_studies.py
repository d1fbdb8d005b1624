"""Two studies from the command line: a measurement of known truth, and trainings that another study reuses.

Studies are imported in the tests: their spaces must not be there when other tests list all spaces.
"""

import json

import pytest
import timm
import torch

from orchestrator.simulate.device import SCENARIOS, GroundTruth
from search.blocks import count

pytestmark = pytest.mark.slow


def test_shares_of_attention_on_a_device_of_known_truth(tmp_path, monkeypatch, capsys):
    from tools.studies import __main__, attention

    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(attention, "LATENCY_BLOCKS", 2)
    arguments = [
        "attention_share",
        "--quick",
        "--device",
        "simulated:quiet",
        "--budget",
        "1s",
        "--json",
        "--pictures",
    ]
    __main__.main([*arguments, str(tmp_path)])
    rows = json.loads(capsys.readouterr().out)["Share of attention at equal parameters"]
    truth = GroundTruth(SCENARIOS["quiet"].costs)
    for sees, (_, row) in zip(attention.HEADS, zip(rows[::2], rows[1::2], strict=True), strict=True):
        made = attention.equally_large(sees, (0, 2), 16, 64)
        without, only = (truth.latency_ms([block.key for block in blocks]) for blocks in made.values())
        assert row["ratio"][0] == pytest.approx(only / without, rel=0.02)
        assert row["parameters"] == count(made[2])[0]
    assert (tmp_path / "attention_share.png").stat().st_size > 5_000


def test_trainings_are_shared_by_studies_and_not_repeated(tmp_path, monkeypatch, capsys):
    from tools.studies import __main__, heads

    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    options = [
        *["--quick", "--seeds", "1", "--epochs", "1", "--jobs", "1", "--json", "--pictures"],
        str(tmp_path),
    ]
    __main__.main(["head_similarity", *options])
    rows = json.loads(capsys.readouterr().out)["Similarity of heads"]
    assert len(rows) == 2 * heads.QUICK_SIZE[1]
    assert all(-1 <= row["centred"][0] <= row["similarity"][0] <= 1 for row in rows)
    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.json")}
    assert checkpoints
    __main__.main(["importance", *options])
    rows = json.loads(capsys.readouterr().out)["Importance of channels"]
    assert all(0 <= row["kept, %"][0] <= 100 for row in rows)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.json")} == checkpoints


def test_objectives_share_a_teacher_and_resume(tmp_path, monkeypatch, capsys):
    from search.supernet.train.teacher import Teacher
    from tools.studies import __main__, objectives

    name = "test_resnet.r160_in1k"
    torch.manual_seed(0)
    torch.save(timm.create_model(name, num_classes=10).state_dict(), tmp_path / "teacher.pth")
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(
        objectives, "trained_teacher", lambda *_, **__: (f"timm:{name}:{tmp_path / 'teacher.pth'}", 10.0)
    )
    monkeypatch.setattr(Teacher, "check", lambda *_: None)
    command = ["objectives", "--quick", "--seeds", "2", "--epochs", "1", "--jobs", "1", "--json"]
    command += ["--only", "soft,labels alone,similarity"]
    __main__.main(command)
    tables = json.loads(capsys.readouterr().out)
    rows = {row["objective"]: row for row in tables["Objectives"]}
    assert set(rows) == {"soft", "labels alone", "similarity"}
    low, high = rows["soft"]["top-1"][1:]
    assert 0 <= low <= high <= 100
    assert tables["Networks"][0]["steps"] > 0
    stored = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "studies").rglob("*.safetensors")
    }
    assert sum("labels" in str(path) for path in stored) == 2, "soft stores, the recording teacher does not"
    __main__.main(command)
    assert json.loads(capsys.readouterr().out) == tables
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "studies").rglob("*.safetensors")}
    assert now == stored


def test_positions_are_judged_at_all_resolutions_and_resume(tmp_path, monkeypatch, capsys):
    from tools.studies import __main__

    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    command = ["positions", "--quick", "--seeds", "1", "--epochs", "1", "--jobs", "1", "--json"]
    command += ["--only", "none,learned,fire"]
    __main__.main(command)
    tables = json.loads(capsys.readouterr().out)
    rows = {row["positions"]: row for row in tables["Networks"]}
    assert set(rows) == {"none", "learned", "fire"}
    assert rows["learned"]["parameters"] - rows["none"]["parameters"] == 48 * 8 * 8
    assert (rows["none"]["parameters"], rows["fire"]["parameters"]) == (106_746, 107_340)
    assert all(0 <= row[f"top-1 at {px} px"][0] <= 100 for row in rows.values() for px in (24, 32, 40))
    checkpoints = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.json")}
    assert checkpoints
    __main__.main(command)
    assert json.loads(capsys.readouterr().out) == tables
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.json")} == checkpoints

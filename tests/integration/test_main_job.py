"""A profile on this machine with the real runtime, killed, resumed, verified, and what it predicts."""

import json
import platform
import signal
from pathlib import Path

import pytest

from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.journal.log import read_log
from tests.support.bench import answer, bench, stopped
from tests.support.profiling import SMALL
from tests.support.sample_places import sample_places

PROFILE = ("profile", "--device", "host", *SMALL)
MOMENTS = (1, 3, 5)
"""Chunks before it is stopped. A profile has six at least, two in each of three passes; more as noise has it."""
MEASURE = ("measure", "--device", "host", "--threads", "1", "--budget", "1s")


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("BLOCKTIME_LUTS", str(home / "luts"))
        patch.setenv("BLOCKTIME_RUNS", str(home / "runs"))
        patch.setenv("BLOCKTIME_CACHE", str(export_cache))
        yield home


@pytest.fixture(scope="module")
def profiled(home):
    """The LUT of an undisturbed run."""
    answer(*PROFILE, "--run", home / "whole")
    return LutStore([home / "luts"]).resolve("host/autovit-nano/executorch-xnnpack-fp32-t1/v1")


def chunks(journal: Path) -> int:
    """How often samples of batches were written: what else a journal holds depends on how busy the machine is."""
    return sum(record.kind == "chunk" for record in read_log(journal))


def test_the_lut_is_valid_measured_and_complete(profiled):
    lut = verify_lut(profiled.path)
    assert lut.meta.measured == "measured"
    assert lut.meta.device.os_build == platform.release()
    assert len(lut.entries) == 40
    assert {model.role for model in lut.models} == {"reference", "design", "heldout"}


def test_any_edited_byte_fails_verification(profiled):
    entries = profiled.path / "entries.csv"
    whole = entries.read_bytes()
    entries.chmod(0o644)
    try:
        entries.write_bytes(whole.replace(b"design", b"desigm", 1))
        result = bench("lut", "verify", "host")
        assert result.returncode == 6
        assert "entries.csv" in result.stderr
    finally:
        entries.write_bytes(whole)
    assert bench("lut", "verify", "host").returncode == 0


def test_killed_at_three_moments_and_resumed_it_gives_the_same_keys_and_no_sample_twice(home, profiled):
    folder = home / "killed"
    journal = folder / "journal.jsonl"
    done = 0
    for moment in MOMENTS:
        killed = stopped("SIGKILL", "chunks", moment - done, *PROFILE, "--run", folder)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not journal.read_bytes().endswith(b"\n"), "it was killed while it wrote"
        done = chunks(journal)
    before = sample_places(read_log(journal))
    answer(*PROFILE, "--run", folder)
    after = sample_places(read_log(journal))
    assert len(after) == len(set(after))
    assert set(before) <= set(after)
    store = LutStore([home / "luts"])
    first, second = store.load(profiled.path), store.load("host/autovit-nano/executorch-xnnpack-fp32-t1/v2")
    assert [entry.key for entry in first.entries] == [entry.key for entry in second.entries]
    assert {model.model_id for model in first.models} == {model.model_id for model in second.models}


def test_interrupted_it_ends_with_130_and_a_journal_that_goes_on(home, profiled):
    folder = home / "interrupted"
    journal = folder / "journal.jsonl"
    interrupted = stopped("SIGINT", "chunks", MOMENTS[1], *PROFILE, "--run", folder)
    assert interrupted.returncode == 130, interrupted.stderr
    assert "run the same command to resume" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    before = set(sample_places(read_log(journal)))
    assert before
    answer(*PROFILE, "--run", folder)
    assert before <= set(sample_places(read_log(journal)))


def test_a_finished_run_is_reused_when_asked_to(home, profiled):
    shown = json.loads(answer(*PROFILE, "--run", home / "whole", "--reuse", "--json"))
    assert shown["path"] == str(profiled.path)
    assert bench(*PROFILE, "--run", home / "whole").returncode == 2


def test_a_journal_of_another_variant_is_refused(home, profiled):
    folder = home / "other"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes((home / "whole" / "journal.jsonl").read_bytes())
    other = [part if part != "1" else "2" for part in PROFILE]
    result = bench(*other, "--run", folder)
    assert result.returncode == 4
    assert "started under other conditions: variant (executorch-xnnpack-fp32-t1 is now" in result.stderr


def test_prediction_measurement_and_validation(home, profiled):
    archs = [home / f"arch{seed}.json" for seed in range(2)]
    for seed, path in enumerate(archs):
        path.write_text(answer("arch", "sample", "autovit-nano", "--seed", seed))
    options = [part for path in archs for part in ("--arch", path)]
    predicted = json.loads(answer("predict", "--lut", "host/v1", *options, "--json"))
    measured = json.loads(answer(*MEASURE, "--no-self-test", *options, "--json"))
    assert [row["params"] for row in measured["models"]] == [
        json.loads(answer("arch", "show", path, "--json"))["params"] for path in archs
    ]
    for row in (*predicted, *measured["models"]):
        assert 0 < row["ms"] < 1000
    checked = json.loads(
        answer("validate", "--lut", "host/v1", "--device", "host", "-n", 2, "--budget", "1s", "--json")
    )
    assert len(checked["comparisons"]) == 2
    assert checked["noise_floor"] >= 0
    assert checked["mape"] == pytest.approx(
        sum(abs(c["predicted_ms"] / c["measured_ms"] - 1) for c in checked["comparisons"]) / 2
    )


@pytest.mark.slow
def test_host_self_test_is_in_the_journal(home, monkeypatch):
    """A machine that is busy may be refused; no other outcome is allowed."""
    monkeypatch.setenv("BLOCKTIME_RUNS", str(home / "tested"))
    archs = [home / f"tested{seed}.json" for seed in range(2)]
    for seed, path in enumerate(archs):
        path.write_text(answer("arch", "sample", "autovit-nano", "--seed", seed))
    done = bench(*MEASURE, "--arch", archs[0], "--arch", archs[1])
    assert done.returncode == 0 or (done.returncode == 4 and "--no-self-test" in done.stderr), done.stderr
    (journal,) = (home / "tested").rglob("journal.jsonl")
    kinds = [record.kind for record in read_log(journal)]
    assert "company" in kinds
    assert ("chunk" in kinds) == (done.returncode == 0)
    if done.returncode == 0:
        assert kinds.index("company") < kinds.index("chunk")

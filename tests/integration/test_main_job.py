"""The main job on this machine with the real runtime: profile, kill, resume, verify, train, search, measure."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from profiling import SMALL

from luts.store import LutStore
from luts.verify import verify_lut
from orchestrator.measure.log import read_log
from orchestrator.measure.samples import samples_table

BENCH = Path(sys.executable).parent / "bench"
PROFILE = ["profile", "--device", "host", *SMALL]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home, export_cache):
    return os.environ | {"BLOCKTIME_LUTS": str(home / "luts"), "BLOCKTIME_CACHE": str(export_cache)}


@pytest.fixture(scope="module")
def bench(home, environment):
    def call(*arguments, check=True):
        result = subprocess.run(
            [BENCH, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            cwd=home,
            check=False,
        )
        assert not check or result.returncode == 0, result.stderr
        return result

    return call


@pytest.fixture(scope="module")
def profiled(bench, home):
    """The LUT of an undisturbed run."""
    bench(*PROFILE, "--run", home / "whole")
    return LutStore([home / "luts"]).resolve("host/autovit-nano/executorch-xnnpack-fp32-t1/v1")


def sample_places(journal):
    table = samples_table(read_log(journal))
    return list(
        zip(*(table.column(name).to_pylist() for name in ("batch", "round", "position")), strict=True)
    )


def test_the_lut_is_valid_measured_and_complete(profiled):
    lut = verify_lut(profiled.path)
    assert lut.meta.measured == "measured"
    assert lut.meta.device.os_build == platform.release()
    assert len(lut.entries) == 40
    assert {model.role for model in lut.models} == {"reference", "design", "heldout"}


def test_any_edited_byte_fails_verification(bench, home, profiled):
    entries = profiled.path / "entries.csv"
    whole = entries.read_bytes()
    entries.chmod(0o644)
    try:
        entries.write_bytes(whole.replace(b"design", b"desigm", 1))
        result = bench("lut", "verify", "host", check=False)
        assert result.returncode == 6
        assert "entries.csv" in result.stderr
    finally:
        entries.write_bytes(whole)
    assert bench("lut", "verify", "host").returncode == 0


def test_killed_at_three_moments_and_resumed_it_gives_the_same_keys_and_no_sample_twice(
    bench, home, environment, profiled
):
    folder = home / "killed"
    journal = folder / "journal.jsonl"
    whole_size = (home / "whole" / "journal.jsonl").stat().st_size
    command = [BENCH, *PROFILE, "--run", folder]
    for share in (0.1, 0.4, 0.8):
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (
            journal.exists() and journal.stat().st_size > share * whole_size
        ):
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = sample_places(journal)
    bench(*PROFILE, "--run", folder)
    after = sample_places(journal)
    assert len(after) == len(set(after))
    assert set(before) <= set(after)
    store = LutStore([home / "luts"])
    first, second = store.load(profiled.path), store.load("host/autovit-nano/executorch-xnnpack-fp32-t1")
    assert [entry.key for entry in first.entries] == [entry.key for entry in second.entries]
    assert {model.model_id for model in first.models} == {model.model_id for model in second.models}


def test_interrupted_it_ends_with_130_and_a_journal_that_goes_on(bench, home, environment, profiled):
    folder = home / "interrupted"
    journal = folder / "journal.jsonl"
    process = subprocess.Popen(
        [BENCH, *PROFILE, "--run", folder],
        env=environment,
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 20_000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    before = set(sample_places(journal))
    bench(*PROFILE, "--run", folder)
    assert before <= set(sample_places(journal))


def test_a_finished_run_is_reused_when_asked_to(bench, home, profiled):
    shown = json.loads(bench(*PROFILE, "--run", home / "whole", "--reuse", "--json").stdout)
    assert shown["path"] == str(profiled.path)
    assert bench(*PROFILE, "--run", home / "whole", check=False).returncode == 2


def test_a_journal_of_another_variant_is_refused(bench, home, profiled):
    folder = home / "other"
    folder.mkdir()
    (folder / "journal.jsonl").write_bytes((home / "whole" / "journal.jsonl").read_bytes())
    other = [part if part != "1" else "2" for part in PROFILE]
    result = bench(*other, "--run", folder, check=False)
    assert result.returncode == 4
    assert "begun under other conditions: variant (executorch-xnnpack-fp32-t1 is now" in result.stderr


def test_prediction_measurement_and_validation(bench, profiled, home):
    archs = [home / f"arch{seed}.json" for seed in range(2)]
    for seed, path in enumerate(archs):
        path.write_text(bench("arch", "sample", "autovit-nano", "--seed", seed).stdout)
    options = [part for path in archs for part in ("--arch", path)]
    predicted = json.loads(bench("lut", "predict", "host/v1", *options, "--json").stdout)
    measured = json.loads(
        bench("measure", "--device", "host", "--threads", "1", "--budget", "1s", *options, "--json").stdout
    )
    assert [row["params"] for row in measured["models"]] == [
        json.loads(bench("arch", "show", path, "--json").stdout)["params"] for path in archs
    ]
    for row in (*predicted, *measured["models"]):
        assert 0 < row["ms"] < 1000
    checked = json.loads(
        bench("validate", "--lut", "host/v1", "--device", "host", "-n", 2, "--budget", "1s", "--json").stdout
    )
    assert len(checked["comparisons"]) == 2
    assert checked["noise_floor"] >= 0
    assert checked["mape"] == pytest.approx(
        sum(abs(c["predicted_ms"] / c["measured_ms"] - 1) for c in checked["comparisons"]) / 2
    )


def test_training_searching_and_measuring_the_winner(bench, profiled, home):
    trained = json.loads(
        bench(
            "train", "--space", "autovit-nano", "--data", "digits", "--recipe", "demo",
            "--epochs", 1, "-o", home / "supernet", "--json",
        ).stdout
    )  # fmt: skip
    assert trained["steps"] > 0
    search = [
        "search", "--lut", "host/v1", "--supernet", home / "supernet", "--point",
        "--population", 6, "--generations", 1, "--crossovers", 2, "--mutations", 2, "--top", 1,
        "--budget", "1s", "-o", home / "search",
    ]  # fmt: skip
    found = json.loads(bench(*search, "--latency", "100%", "--device", "host", "--json").stdout)
    assert found["winner"]["latency_ms"] <= found["budget"]["latency_ms"]
    assert found["measured"][0]["arch"] == found["winner"]["arch"]
    for name in ("winner.json", "winner.safetensors", "winner.pte", "result.json", "measured.json"):
        assert (home / "search" / name).stat().st_size > 0
    row = json.loads(
        bench("eval", "--arch", home / "search/winner.json", "--supernet", home / "supernet", "--json").stdout
    )
    assert row["top1"] == pytest.approx(found["winner"]["accuracy"])
    impossible = bench(*search, "--latency", "0.001ms", check=False)
    assert impossible.returncode == 5
    assert "smallest latency that can be reached" in impossible.stderr
    report = home / "report.html"
    bench("report", "--lut", "host/v1", "-o", report)
    assert "<svg" in report.read_text()

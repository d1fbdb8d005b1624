"""`bench search` with real workers: the same result whatever their number, and after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from winner_world import make_lut

from luts.store import LutStore
from search.algorithms import SearchResult

BENCH = Path(sys.executable).parent / "bench"
OPTIONS = [
    *("--latency", "95%", "--confidence", "0.8"),
    *("--population", "6", "--generations", "2", "--parents", "3", "--crossovers", "3", "--mutations", "3"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    LutStore([home / "luts"]).write(make_lut())
    return home


@pytest.fixture(scope="module")
def environment(home):
    return os.environ | {"BLOCKTIME_LUTS": str(home / "luts"), "BLOCKTIME_CACHE": str(home / "cache")}


@pytest.fixture(scope="module")
def bench(home, environment):
    def call(*arguments):
        command = [BENCH, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home, check=False)

    return call


@pytest.fixture(scope="module")
def supernet(bench, home):
    options = "train --space autovit-nano --data digits --recipe demo --epochs 1"
    trained = bench(*options.split(), "-o", home / "supernet")
    assert trained.returncode == 0, trained.stderr
    return home / "supernet"


def command(supernet, output, *further):
    return ["search", "--lut", "host", "--supernet", supernet, "-o", output, *OPTIONS, *further]


@pytest.fixture(scope="module")
def undisturbed(bench, home, supernet):
    """Output of a search with one worker."""
    own = shutil.copytree(supernet, home / "own")
    found = bench(*command(own, home / "undisturbed", "--workers", 1))
    assert found.returncode == 0, found.stderr
    return home / "undisturbed"


def test_everything_is_written_and_says_where_it_comes_from(undisturbed, supernet):
    result = SearchResult.load(undisturbed / "result.json")
    pins = result.provenance
    info = json.loads((supernet / "checkpoint.json").read_text())
    assert pins.checkpoint == info["weights_sha256"]
    assert (pins.data, pins.data_digest, pins.split) == ("digits", info["data_digest"], "search")
    assert pins.luts[0].sha256 == result.price
    assert len(pins.code.sources) == 64
    assert json.loads((undisturbed / "winner.json").read_text()) == json.loads(result.winner.arch)
    for name in ("winner.pte", "winner.safetensors"):
        assert (undisturbed / name).stat().st_size > 0
    assert (undisturbed / "winner.mlpackage" / "Manifest.json").exists()
    card = (undisturbed / "winner.md").read_text()
    assert result.winner.arch in card
    assert pins.checkpoint in card


def test_killed_with_four_workers_and_resumed_it_finds_the_same(
    bench, home, environment, supernet, undisturbed
):
    own = shutil.copytree(supernet, home / "killed-supernet")
    accuracies = own / "accuracies.jsonl"
    arguments = [str(part) for part in command(own, home / "killed", "--workers", 4)]
    process = subprocess.Popen(
        [BENCH, *arguments], env=environment, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (accuracies.exists() and accuracies.read_bytes().count(b"\n") >= 8):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (home / "killed" / "result.json").exists()
    before = accuracies.read_bytes()
    before = before[: before.rfind(b"\n") + 1]
    resumed = bench(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    found, expected = (SearchResult.load(path / "result.json") for path in (home / "killed", undisturbed))
    assert found.model_dump(exclude={"provenance": {"code"}}) == expected.model_dump(
        exclude={"provenance": {"code"}}
    )
    for name in ("winner.json", "winner.safetensors", "winner.pte"):
        assert (home / "killed" / name).read_bytes() == (undisturbed / name).read_bytes(), name
    after = accuracies.read_bytes()
    assert after.startswith(before)
    archs = [json.loads(line)["arch"] for line in after.splitlines()]
    assert len(archs) == len(set(archs))
    assert set(archs) == {row.arch for row in found.evaluated}


def test_interrupted_it_ends_with_130_and_keeps_what_is_done(home, environment, supernet):
    own = shutil.copytree(supernet, home / "interrupted-supernet")
    accuracies = own / "accuracies.jsonl"
    arguments = [str(part) for part in command(own, home / "interrupted", "--workers", 2)]
    process = subprocess.Popen(
        [BENCH, *arguments],
        env=environment,
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (accuracies.exists() and accuracies.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert "run the same command to go on" in errors
    assert "Traceback" not in errors
    assert accuracies.read_bytes().endswith(b"\n")


def test_what_cannot_be_is_one_line_with_its_exit_code(bench, home, supernet, tmp_path):
    alone = bench(*command(supernet, tmp_path, "--feedback"))
    assert (alone.returncode, "add --device" in alone.stderr) == (2, True)
    damaged = shutil.copytree(supernet, home / "damaged")
    (damaged / "accuracies.jsonl").write_text("nonsense\n")
    refused = bench(*command(damaged, tmp_path))
    assert (refused.returncode, "line 1 is no accuracy" in refused.stderr) == (6, True)
    impossible = bench(*command(supernet, tmp_path), "--latency", "0.001ms")
    assert (impossible.returncode, "smallest latency that can be reached" in impossible.stderr) == (5, True)
    for told in (alone, refused, impossible):
        assert "Traceback" not in told.stderr


def test_a_cluster_without_ray_is_a_usage_error(environment, supernet, tmp_path):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError('no ray here', name='ray')")
    told = subprocess.run(
        [BENCH, *map(str, command(supernet, tmp_path, "--cluster"))],
        capture_output=True,
        text=True,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        check=False,
    )
    assert (told.returncode, "blocktime[cluster]" in told.stderr) == (2, True)

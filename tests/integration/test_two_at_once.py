"""Two `bench` at once in one place: they take turns, or the second is refused with the name of the first."""

import json
import os
import shutil

import pytest

from luts.format.files import LOCK_FILE, exclusive_folder
from luts.format.store import LutStore
from search.algorithms import SearchResult
from tests.support.bench import answer, bench, refused
from tests.support.bundle_world import make_bundle, run
from tests.support.paused_bench import paused_at
from tests.support.training import write_gratings
from tests.support.winner_world import make_lut

SEARCH = ("--lut", "host", "--confidence", "0.8")
TRAIN = ("train", "--space", "autovit-nano", "--recipe", "demo", "--epochs", "1", "--batch-size", "8")


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    home = tmp_path_factory.mktemp("home")
    LutStore([home / "luts"]).write(make_lut())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        for name in ("luts", "runs"):
            patch.setenv(f"BLOCKTIME_{name.upper()}", str(home / name))
        patch.setenv("BLOCKTIME_CACHE", str(export_cache))
        yield home


@pytest.fixture(scope="module")
def journal(home):
    make_bundle(home / "nano.bundle")
    return run(home / "nano.bundle", home)


@pytest.fixture(scope="module")
def images(home):
    write_gratings(home / "images", 12)
    return "--data", f"imagefolder:{home / 'images'}"


def refused_by(first, done, exit_code=1):
    """The second was refused in one line that names the first."""
    refused(done, exit_code, f"by process {first.pid} (", "wait until it has ended", "stop it")


def test_a_second_search_in_a_result_folder_is_refused(home):
    command = ["search", *SEARCH, "--latency", "95%", "-o", home / "found"]
    other = ["search", *SEARCH, "--latency", "80%", "-o", home / "found"]
    with paused_at("orchestrator.winner.winner:ResultFolder.save", *command) as first:
        for second in (command, other):
            refused_by(first, bench(*second))
        first.kill()
        answer(*other)
    assert SearchResult.load(home / "found" / "result.json").constraints.latency_ms
    refused(bench(*command), 2, "has a search with another constraint")


def test_a_second_training_in_a_supernet_folder_is_refused(home, images):
    command = [*TRAIN, *images, "-o", home / "supernet"]
    with paused_at("search.supernet.train.supernet_task:SupernetTask.save", *command) as first:
        refused_by(first, bench(*command))
        first.kill()
        answer(*command)


def test_a_supernet_that_a_training_replaces_while_it_is_opened_is_read_again(home, images):
    for seed in (1, 2):
        answer(*TRAIN, *images, "--seed", seed, "-o", home / f"seed{seed}")
    (home / "arch.json").write_text(answer("arch", "sample", "autovit-nano"))
    shutil.copytree(home / "seed1", folder := home / "replaced")
    command = ["eval", home / "arch.json", "--json", "--supernet"]
    with paused_at("search.supernet.train.checkpoint:read_tensors", *command, folder) as reading:
        for old in folder.glob("supernet-*.safetensors"):
            old.unlink()
        shutil.copytree(home / "seed2", folder, dirs_exist_ok=True)
        done = reading.go_on()
    assert done.returncode == 0, done.stderr
    expected = json.loads(answer(*command, home / "seed2"))
    assert json.loads(done.stdout) == expected


def test_two_imports_of_a_journal_make_one_version(home, journal):
    command = ["import", journal, "--name", "once", "--luts", home / "once"]
    with paused_at("orchestrator.journal.runs:Run.finish", *command) as first:
        refused_by(first, bench(*command))
        first.kill()
    answer(*command)
    assert [ref.version for ref in LutStore([home / "once"]).list()] == [1]


def test_two_writers_of_one_lut_take_turns_and_make_one_version(home, journal, monkeypatch):
    command = ["import", journal, "--name", "turns", "--luts", home / "turns"]
    monkeypatch.setenv("BLOCKTIME_RUNS", str(home / "turns-runs"))
    with paused_at("luts.format.store:LutStore.write_once", *command) as killed:
        killed.kill()
    shutil.copytree(home / "turns-runs", home / "copied-runs")
    with paused_at("luts.format.store:LutStore.write_files", *command) as first:
        monkeypatch.setenv("BLOCKTIME_RUNS", str(home / "copied-runs"))
        with paused_at("luts.format.store:one_at_a_time", *command) as second:
            second.release()
            for one in (first, second):
                done = one.go_on()
                assert done.returncode == 0, done.stderr
    assert [ref.version for ref in LutStore([home / "turns"]).list()] == [1]


def test_a_lock_of_a_dead_process_is_no_obstacle_whoever_has_its_number_now(tmp_path):
    (tmp_path / LOCK_FILE).write_text(f"process {os.getppid()} (bench train, since 10:00)\n")
    with exclusive_folder(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text().startswith(f"process {os.getpid()} (")

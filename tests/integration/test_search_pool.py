"""Evaluation over processes and over Ray: the same accuracies, and what happens to workers that fail."""

import functools
import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from orchestrator.cli.main import exit_code
from search.algorithms.evaluation import CachedEvaluator, ProcessPool, RayPool
from search.blocks import parse_key
from search.spaces import get_space
from search.spaces.plugins import load_plugin
from tests.support.bench import module_environment
from tests.support.errors import raises
from tests.support.own_code import own_code_forgotten, write_own_code
from tests.support.search_openers import FINGERPRINT, Toy, expected
from tests.support.waiting import has_ended, until


@pytest.fixture(scope="module")
def archs():
    rng = random.Random(5)
    return list({get_space("autovit-nano").sample(rng): None for _ in range(12)})


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_accuracies(archs, tmp_path, workers):
    with ProcessPool(Toy(tmp_path, seconds=0.01), FINGERPRINT, workers) as pool:
        found = dict(pool.stream(archs))
        again = dict(pool.stream(archs[:2]))
    assert found == {arch: expected(arch) for arch in archs}
    assert again == {arch: expected(arch) for arch in archs[:2]}
    evaluated = [path.name.split("-") for path in tmp_path.iterdir()]
    processes = {pid for pid, _ in evaluated}
    assert str(os.getpid()) not in processes
    assert 1 <= len(processes) <= workers
    assert len({digest for _, digest in evaluated}) == len(archs)


def test_a_crashed_worker_is_reported_and_other_results_are_cached(archs, tmp_path):
    doomed = Toy(tmp_path, archs[3].digest, "die", seconds=0.01)
    path = tmp_path / "accuracies.jsonl"
    with ProcessPool(doomed, FINGERPRINT, 2) as pool:
        with raises("worker_crashed") as caught:
            CachedEvaluator(pool, path).accuracies(archs)
        assert exit_code(caught.value) == 1
    kept = path.read_text().splitlines()
    assert len(kept) >= 3
    with ProcessPool(Toy(tmp_path), FINGERPRINT, 2) as pool:
        assert CachedEvaluator(pool, path).accuracies(archs) == [expected(arch) for arch in archs]
    assert path.read_text().splitlines()[: len(kept)] == kept
    assert len(path.read_text().splitlines()) == len(archs)


@pytest.mark.parametrize(
    ("how", "code"), [("refuse", "refused"), ("raise", "unexpected_error"), ("fill", "out_of_memory")]
)
def test_the_error_of_an_evaluation_is_raised(archs, tmp_path, how, code):
    with ProcessPool(Toy(tmp_path, archs[0].digest, how), FINGERPRINT, 2) as pool, raises(code):
        list(pool.stream(archs))


def test_a_worker_with_another_checkpoint_is_refused(archs, tmp_path):
    with ProcessPool(Toy(tmp_path), "b" * 64, 1) as pool, raises("inputs_changed"):
        list(pool.stream(archs))


def test_workers_end_with_their_parent(archs, tmp_path):
    script = textwrap.dedent("""
        import random, sys
        from pathlib import Path
        from tests.support.search_openers import FINGERPRINT, Toy
        from search.algorithms.evaluation import ProcessPool
        from search.spaces import get_space
        if __name__ == "__main__":
            rng = random.Random(0)
            archs = [get_space("autovit-nano").sample(rng) for _ in range(1000)]
            with ProcessPool(Toy(Path(sys.argv[1]), seconds=0.05), FINGERPRINT, 2) as pool:
                while True:
                    for _ in pool.stream(archs):
                        pass
        """)
    path = tmp_path / "parent.py"
    path.write_text(script)
    folder = tmp_path / "seen"
    for number in (signal.SIGINT, signal.SIGKILL):
        folder.mkdir()
        parent = subprocess.Popen(
            [sys.executable, path, folder], env=module_environment(), stderr=subprocess.PIPE, text=True
        )
        until(lambda: len(processes_of(folder)) == 2, process=parent)
        parent.send_signal(number)
        errors = parent.communicate(timeout=300)[1]
        assert parent.returncode != 0
        assert "KeyboardInterrupt" in errors or number is signal.SIGKILL
        for worker in processes_of(folder):
            until(functools.partial(has_ended, worker))
        for name in folder.iterdir():
            name.unlink()
        folder.rmdir()


def processes_of(folder):
    """Return the ids of the processes that evaluated."""
    return {int(path.name.split("-")[0]) for path in folder.iterdir()}


@pytest.mark.slow
def test_ray_workers_give_the_same_accuracies_and_errors(archs, tmp_path, monkeypatch, request):
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with RayPool(Toy(tmp_path), FINGERPRINT, 2) as pool:
        assert dict(pool.stream(archs)) == {arch: expected(arch) for arch in archs}
    assert str(os.getpid()) not in {path.name.split("-")[0] for path in tmp_path.iterdir()}
    assert not ray.is_initialized(), "the pool's own cluster ends with it"
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    request.addfinalizer(ray.shutdown)
    for how, code in (("refuse", "refused"), ("raise", "unexpected_error"), ("die", "worker_crashed")):
        with RayPool(Toy(tmp_path, archs[0].digest, how), FINGERPRINT, 1) as pool, raises(code):
            list(pool.stream(archs))
    with RayPool(Toy(tmp_path), "b" * 64, 1) as pool, raises("inputs_changed"):
        list(pool.stream(archs))
    with own_code_forgotten():
        load_plugin(str(write_own_code(tmp_path)))
        opener = sys.modules[type(parse_key("own.se(c=8,r=4)@7")).__module__].Opener()
        own_archs = list(get_space("own-se"))[:2]
        with RayPool(opener, opener.fingerprint, 1) as pool:
            assert dict(pool.stream(own_archs)) == {arch: opener.accuracy(arch) for arch in own_archs}
    assert ray.is_initialized(), "a cluster that was there stays"


def test_the_cluster_needs_ray(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with raises("missing_package"):
        RayPool(Toy(tmp_path), FINGERPRINT, 1)

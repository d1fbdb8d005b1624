"""Training in a process of its own, killed and gone on with; then the search, and the winner's weights."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from luts.format.latency import EntryCost, LatencyModel
from search.algorithms import (
    CachedEvaluator,
    Constraints,
    InProcess,
    LutPrice,
    SearchResult,
    SearchSettings,
    search,
)
from search.spaces import get_space
from search.supernet.inherit import InheritedAccuracy, reopen_data
from search.supernet.train.checkpoint import load_supernet, read_info

SCRIPT = """
import os, signal, sys, torch
from pathlib import Path
from search.spaces import get_space
from search.supernet.recipe.recipe import Recipe
from search.supernet.data.images import open_data
from tests.support.training import supernet_trainer

torch.set_num_threads(1)
assert "timm" not in sys.modules, "it takes seconds, and few recipes need it"
recipe = Recipe(name="tiny", epochs=3, batch_size=128, learning_rate=2e-3, warmup_epochs=1, held_out=0.2)
space = get_space("autovit-nano")
directory, number, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def watch(progress):
    if progress.step == step:
        os.kill(os.getpid(), number)

supernet_trainer(space, open_data("digits", space, recipe), recipe, directory).run(watch)
"""


def _train(directory, number=0, step=-1):
    arguments = [sys.executable, "-c", SCRIPT, str(directory), str(number), str(step)]
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=300, check=False, env=dict(os.environ)
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    done = _train(directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_weights(directory, tmp_path):
    assert _train(tmp_path, signal.SIGKILL, 13).returncode == -signal.SIGKILL
    assert read_info(tmp_path).step == 8
    interrupted = _train(tmp_path, signal.SIGINT, 18)
    assert interrupted.returncode != 0
    assert "KeyboardInterrupt" in interrupted.stderr
    assert read_info(tmp_path).step == 18
    assert _train(tmp_path).returncode == 0
    assert read_info(tmp_path) == read_info(directory)


def test_search_on_a_trained_supernet_gives_a_network_that_keeps_its_promises(directory, tmp_path):
    torch.set_num_threads(1)
    supernet, info = load_supernet(directory)
    space = supernet.space
    costs = {
        block.key: EntryCost(block.macs().total * 1e-6, 0.0, False)
        for block in get_space("autovit-nano").block_specs()
    }
    price = LutPrice(LatencyModel(0.1, 0.05, costs, 0.02, 0.95), "d" * 64)
    data = reopen_data(info)
    evaluator = InheritedAccuracy(supernet, info, data, calibration_batches=1)
    cached = CachedEvaluator(InProcess(evaluator), tmp_path / "accuracies.jsonl")
    settings = SearchSettings(population=6, skeletons=3, generations=1, parents=3, crossovers=3, mutations=3)
    budget = Constraints(latency_ms=6.0, cautious=True)
    result = search(space, price, cached, budget, settings)
    assert search(space, price, cached, budget, settings) == result
    assert result.winner.latency_high_ms <= 6.0
    assert result.winner.latency_high_ms == pytest.approx(1.02 * result.winner.latency_ms)
    assert result.winner.accuracy == max(found.accuracy for found in result.evaluated)
    result.save(tmp_path / "search.json")
    winner = SearchResult.load(tmp_path / "search.json").winner.architecture()
    network = evaluator.network(winner)
    assert sum(p.numel() for p in network.parameters()) == result.winner.params
    images, labels = data.batch(data.split.search, winner.resolution)
    with torch.no_grad():
        top1 = (network(images).argmax(1) == labels).float().mean().item()
    assert top1 == pytest.approx(result.winner.accuracy, abs=0.01)
    assert top1 > 0.2, "better than guessing one of ten digits"

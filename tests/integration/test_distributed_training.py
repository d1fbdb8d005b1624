"""Two processes over gloo, started by torchrun: one process's result; and what is left when one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import torch

from search.supernet.checkpoint import load_supernet, read_info

RECIPE = """
extends = "demo"
epochs = 2
batch_size = 360
micro_batches = 2
ema_decay = 0.9
save_epochs = 1
clip_norm = 1.0
drop_path = 0.2
"""
"""Two steps an epoch of digits, of which 40 % are held out."""

COMMAND = "from orchestrator.cli.entry import main; main()"

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from luts.errors import BlocktimeError
from search.spaces import get_space
from search.supernet.distributed import process_group
from search.supernet.recipe_files import get_recipe
from search.supernet.recipe_scope import open_data
from search.supernet.train import Trainer

torch.set_num_threads(1)
recipe, space = get_recipe(sys.argv[1]), get_space("autovit-nano")

def watch(progress):
    if group.rank == 1 and progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

with process_group() as group:
    trainer = Trainer(space, open_data("digits", space, recipe), recipe, Path(sys.argv[2]), group=group)
    try:
        trainer.run(watch)
    except BlocktimeError as error:
        print(type(error).__name__, error)
        sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "two.toml"
    path.write_text(RECIPE + "held_out = 0.2\n")
    return path


@pytest.fixture(scope="module")
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _train(environment, recipe, output, *launcher):
    options = ["train", "--space", "autovit-nano", "--data", "digits", "--recipe", str(recipe), "--json"]
    command = [sys.executable, *launcher, "-c", COMMAND, *options, "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def alone(environment, recipe, tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    _train(environment, recipe, directory)
    return directory


def _assert_close(one, other):
    (first, info), (second, other_info) = load_supernet(one), load_supernet(other)
    assert (info.step, info.finished) == (other_info.step, True)
    assert info.loss == pytest.approx(other_info.loss, rel=1e-4)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_two_processes_give_the_result_of_one(environment, recipe, alone, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    facts = _train(environment, recipe, tmp_path, *torchrun, sys.executable)
    assert facts["steps"] == 4
    _assert_close(alone, tmp_path)


def test_survivor_of_a_killed_process_says_so_and_the_run_goes_on(environment, recipe, alone, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = environment | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", KILLED, str(recipe), str(tmp_path)],
            env=shared | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = processes[0].communicate(timeout=300)[0]
        processes[1].wait(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode == 1
    lines = [line for line in said.splitlines() if line.startswith("RankLostError")]
    assert len(lines) == 1
    assert "last checkpoint is whole, run the same command to go on" in lines[0]
    assert read_info(tmp_path).step == 2
    _train(environment, recipe, tmp_path)
    _assert_close(alone, tmp_path)

"""Two processes over gloo, started by torchrun: one process's result; and what is left when one of them dies."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from search.spaces import get_space
from search.supernet.data.images import open_data
from search.supernet.recipe.recipe import get_recipe
from search.supernet.recipe.schedule import TrainingSchedule
from search.supernet.train.checkpoint import load_supernet, read_info
from tests.support.bench import answer

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
from luts.format.errors import BlocktimeError
from orchestrator.wire.errors import exit_code
from search.spaces import get_space
from search.supernet.train.parallel import process_group
from search.supernet.recipe.recipe import get_recipe
from search.supernet.data.images import open_data
from tests.support.training import supernet_trainer

torch.set_num_threads(1)
recipe, space = get_recipe(sys.argv[1]), get_space("autovit-nano")

def watch(progress):
    if group.rank == 1 and progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)

with process_group() as group:
    trainer = supernet_trainer(space, open_data("digits", space, recipe), recipe, Path(sys.argv[2]), group=group)
    try:
        trainer.run(watch)
    except BlocktimeError as error:
        print(type(error).__name__, error)
        sys.exit(exit_code(error))
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "two.toml"
    path.write_text(RECIPE + "held_out = 0.2\n")
    return path


@pytest.fixture(scope="module")
def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _options(recipe, output, data="digits"):
    options = (
        "train",
        "--space",
        "autovit-nano",
        "--data",
        data,
        "--recipe",
        recipe,
        "--on",
        "cpu",
        "--json",
    )
    return [*map(str, options), "-o", str(output)]


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    directory = tmp_path_factory.mktemp("alone")
    answer(*_options(recipe, directory))
    return directory


def _assert_close(one, other):
    (first, info), (second, other_info) = load_supernet(one), load_supernet(other)
    assert (info.step, info.finished) == (other_info.step, True)
    assert info.loss == pytest.approx(other_info.loss, rel=1e-4)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def _by_two(environment, options):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [sys.executable, *torchrun, sys.executable, "-c", COMMAND, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_two_processes_give_the_result_of_one(environment, recipe, alone, tmp_path):
    done = _by_two(environment, _options(recipe, tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    _assert_close(alone, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_unreadable_image_of_one_process_loses_no_step(environment, tmp_path, rank):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(12):
            shade = Image.new("RGB", (20, 20), (20 * index, 100, len(name)))
            shade.save(tmp_path / "pets" / name / f"{index:02}.png")
    (tmp_path / "four.toml").write_text(
        "epochs = 1\nbatch_size = 4\nmicro_batches = 2\nlearning_rate = 1e-3\n"
    )
    recipe, data = get_recipe(str(tmp_path / "four.toml")), f"imagefolder:{tmp_path}/pets"
    train = open_data(data, get_space("autovit-nano"), recipe).split.train
    victim = int(TrainingSchedule(recipe, train, (64,)).part(2, rank).indices[0])
    path = tmp_path / "pets" / ("cat", "dog")[victim // 12] / f"{victim % 12:02}.png"
    whole = path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    options = _options(tmp_path / "four.toml", tmp_path / "run", data)
    done = _by_two(environment, options)
    assert done.returncode != 0
    assert f"{path.parent.name}/{path.name} is not an intact image" in done.stderr
    assert (
        "another process can't read its images of step 2; its message names the damaged image" in done.stderr
    )
    assert read_info(tmp_path / "run").step == 2, "what was trained before is saved"
    path.write_bytes(whole)
    done = _by_two(environment, options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == len(train) // 4


@pytest.mark.slow
def test_a_killed_process_is_reported_and_the_run_resumes(environment, recipe, alone, tmp_path):
    # As torchrun does: the processes meet at a store that is open already, on a port that it chose.
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    shared = environment | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2",
    }
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
        reported = processes[0].communicate(timeout=300)[0]
        processes[1].wait(timeout=300)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert processes[1].returncode == -signal.SIGKILL
    assert processes[0].returncode == 1
    lines = [line for line in reported.splitlines() if line.startswith("RankLostError")]
    assert len(lines) == 1
    assert "last checkpoint is whole, run the same command to resume" in lines[0]
    assert read_info(tmp_path).step == 2
    answer(*_options(recipe, tmp_path))
    _assert_close(alone, tmp_path)

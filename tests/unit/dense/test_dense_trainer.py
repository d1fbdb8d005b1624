"""Training with a head: it learns, it goes on bit by bit, its log has every epoch once."""

import csv
import json
import os
import signal

import pytest
import torch

from search.dense.data import open_scenes
from search.dense.training import (
    BackboneWeights,
    DenseInfo,
    DenseRecipe,
    DenseTask,
    is_dense_run,
    load_dense,
    read_dense_info,
    weights_path,
)
from search.networks import build_network
from search.networks.network import is_head
from search.spaces import get_space
from search.spaces.registry import with_task
from search.supernet.train.trainer import Trainer
from tests.support.errors import raises

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")

TASKS = ("detection", "segmentation")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def backbone():
    """The smallest network of autovit-nano that has a map for each of a detector's two, 64 pixels."""
    return next(arch for arch in get_space("autovit-nano") if len(arch.stages) == 4)


@pytest.fixture(scope="module")
def trainer(made_coco, backbone):
    def make(folder, task="detection", initial=None, **recipe):
        scenes = open_scenes(f"coco:{made_coco}", task)
        arch = with_task(backbone, task, len(scenes.classes))
        settings = {"epochs": 2, "batch_size": 2, "warmup_epochs": 0, **recipe}
        return Trainer(DenseTask(task, arch, scenes, DenseRecipe(**settings), folder, initial))

    return make


def rows_of(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("task", TASKS)
def test_it_learns(trainer, tmp_path, task):
    losses = []
    run = trainer(tmp_path, task, epochs=8, learning_rate=3e-3, augmented=False)
    run.run(lambda progress: losses.append(progress.loss))
    assert sum(losses[-3:]) < 0.85 * sum(losses[:3])


@pytest.mark.parametrize("task", TASKS)
def test_the_log_has_figures_of_every_epoch(trainer, tmp_path, task):
    info = trainer(tmp_path, task).run()
    rows = rows_of(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["3", "6"]
    assert {row["images"] for row in rows} == {"synthetic"}
    name = "map" if task == "detection" else "miou"
    assert float(rows[-1][name]) == pytest.approx(info.figures[name], abs=1e-6)
    assert info.finished
    assert info.synthetic
    assert is_dense_run(tmp_path)


@pytest.mark.parametrize(
    ("task", "stopped_after"), [("segmentation", 2), ("segmentation", 3), ("detection", 4)]
)
def test_a_stopped_run_goes_on_bit_by_bit(trainer, tmp_path, task, stopped_after):
    whole = trainer(tmp_path / "whole", task).run()

    def stop(progress):
        if progress.step == stopped_after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "parts", task).run(stop)
    assert read_dense_info(tmp_path / "parts").step == stopped_after
    parts = trainer(tmp_path / "parts", task).run()
    assert parts.weights_sha256 == whole.weights_sha256
    assert parts.optimizer_sha256 == whole.optimizer_sha256
    assert (tmp_path / "parts" / "log.csv").read_text() == (tmp_path / "whole" / "log.csv").read_text()
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) == 2


def test_a_run_with_other_options_is_refused(trainer, tmp_path):
    trainer(tmp_path).run()
    with raises("different_run"):
        trainer(tmp_path, epochs=3).run()
    with raises("different_run"):
        trainer(tmp_path, "segmentation").run()


def test_what_was_trained_is_loaded(trainer, tmp_path):
    run = trainer(tmp_path)
    info = run.run()
    network, read = load_dense(tmp_path)
    assert read == info
    for name, value in run.task.model.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)
    assert weights_path(tmp_path).name == info.weights


def test_a_damaged_run_is_reported_in_one_line(trainer, tmp_path):
    info = trainer(tmp_path, epochs=1).run()
    (tmp_path / info.weights).write_bytes((tmp_path / info.weights).read_bytes()[:-9])
    with raises("damaged_checkpoint"):
        load_dense(tmp_path)
    document = json.loads((tmp_path / DenseInfo.FILE).read_text())
    for change in ({"weights": "../../etc/passwd"}, {"task": "dancing"}, {"step": -1}):
        (tmp_path / DenseInfo.FILE).write_text(json.dumps(document | change))
        with raises("invalid_file"):
            load_dense(tmp_path)


def test_a_backbone_begins_with_its_weights_and_stands_still_when_frozen(trainer, tmp_path, backbone):
    torch.manual_seed(5)
    given = build_network(backbone.blocks()).state_dict()
    initial = BackboneWeights("given", given)
    run = trainer(tmp_path, initial=initial, freeze=True)
    run.run()
    for name, value in run.task.model.state_dict().items():
        if not is_head(name):
            assert torch.equal(value, given[name]), name
    fresh = trainer(tmp_path / "other", initial=initial).task.model.state_dict()
    moved = [n for n, v in run.task.model.state_dict().items() if is_head(n) and not torch.equal(v, fresh[n])]
    assert moved


def test_a_backbone_that_is_not_frozen_moves(trainer, tmp_path, backbone):
    run = trainer(tmp_path, epochs=1)
    before = {n: v.clone() for n, v in run.task.model.named_parameters()}
    run.run()
    assert any(not torch.equal(v, before[n]) for n, v in run.task.model.named_parameters() if not is_head(n))


def test_weights_of_another_backbone_are_refused(trainer, tmp_path):
    with raises("weights_of_another_network"):
        trainer(tmp_path, initial=BackboneWeights("elsewhere", {"0.conv.weight": torch.zeros(1)}))


def test_other_first_weights_are_another_run(trainer, tmp_path, backbone):
    trainer(tmp_path, epochs=1).run()
    initial = BackboneWeights("given", build_network(backbone.blocks()).state_dict())
    with raises("different_run"):
        trainer(tmp_path, epochs=1, initial=initial).run()


def test_a_batch_larger_than_the_set(trainer, tmp_path):
    with raises("batch_too_large"):
        trainer(tmp_path, batch_size=64)


def test_an_epoch_visits_every_image_once_in_its_own_order(trainer, tmp_path):
    batches = trainer(tmp_path).task.images_by_step
    epochs = [[i for step in range(3) for i in batches.indices(3 * epoch + step)] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(6))
    assert epochs[0] != epochs[1]

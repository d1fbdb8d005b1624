"""Training on the bundled digits: sampling, schedule, resumption, divergence, damaged checkpoints."""

import json
import os
import signal

import pytest
import torch

from luts.errors import BlocktimeError, InvalidArtifactError, UsageError
from search.spaces import get_space
from search.supernet.checkpoint import load_supernet, read_info
from search.supernet.data import ImageData
from search.supernet.recipe import Recipe
from search.supernet.recipe_files import get_recipe
from search.supernet.sources import open_source
from search.supernet.train import Trainer, TrainingDivergedError

TINY = Recipe(name="tiny", epochs=1, batch_size=256, learning_rate=1e-3, warmup_epochs=0.2)
"""Five steps."""


@pytest.fixture(scope="module")
def digits():
    return ImageData(open_source("digits"))


def _trainer(digits, directory, recipe=TINY):
    return Trainer(get_space("autovit-nano"), digits, recipe, directory)


def _equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_interrupted_run_goes_on_bit_by_bit(digits, tmp_path):
    whole = _trainer(digits, tmp_path / "whole")
    seen = []
    finished = whole.run(seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5]
    assert finished.finished
    assert len({p.arch for p in seen}) > 1

    def interrupt(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _trainer(digits, tmp_path / "cut").run(interrupt)
    assert read_info(tmp_path / "cut").step == 2
    second = _trainer(digits, tmp_path / "cut")
    rest = []
    info = second.run(rest.append)
    assert rest == seen[2:]
    assert info == finished
    assert _equal(whole.supernet, second.supernet)
    again = _trainer(digits, tmp_path / "cut").run(lambda p: pytest.fail(f"trained again at {p.step}"))
    assert again == info


def test_loaded_supernet_has_the_trained_weights(digits, tmp_path):
    trainer = _trainer(digits, tmp_path)
    trainer.run()
    supernet, info = load_supernet(tmp_path)
    assert _equal(trainer.supernet, supernet)
    assert info.classes == tuple("0123456789")
    assert [p.name for p in tmp_path.glob("*.safetensors")] == [info.tensors]


def test_nan_stops_and_keeps_the_last_checkpoint(digits, tmp_path):
    trainer = _trainer(digits, tmp_path, TINY.model_copy(update={"epochs": 2}))

    def poison(progress):
        if progress.step == 7:
            with torch.no_grad():
                next(iter(trainer.supernet.parameters())).fill_(float("nan"))

    with pytest.raises(TrainingDivergedError, match=r"step 7 .*subnet \{.*autovit-nano") as caught:
        trainer.run(poison)
    assert "\n" not in str(caught.value)
    supernet, info = load_supernet(tmp_path)
    assert info.step == 5
    assert all(p.isfinite().all() for p in supernet.parameters())


def test_damaged_checkpoints_are_refused(digits, tmp_path):
    trainer = _trainer(digits, tmp_path)
    info = trainer.run()
    tensors, description = tmp_path / info.tensors, tmp_path / "checkpoint.json"
    whole, text = tensors.read_bytes(), description.read_text()
    for damage in (whole[:-100], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        tensors.write_bytes(damage)
        with pytest.raises(InvalidArtifactError, match="truncated or edited"):
            load_supernet(tmp_path)
    tensors.unlink()
    with pytest.raises(InvalidArtifactError, match="cannot be read"):
        load_supernet(tmp_path)
    tensors.write_bytes(whole)
    document = json.loads(text)
    for change in (
        {"tensors": "../../etc/passwd"},
        {"format": 2},
        {"extra": 1},
        {"step": -1},
        {"space_digest": "0" * 64},
        {"classes": ["a", "b"]},
    ):
        description.write_text(json.dumps(document | change))
        with pytest.raises(InvalidArtifactError) as caught:
            load_supernet(tmp_path)
        assert "\n" not in str(caught.value)
    description.write_text(text[: len(text) // 2])
    with pytest.raises(InvalidArtifactError, match="checkpoint.json: invalid"):
        load_supernet(tmp_path)
    description.unlink()
    with pytest.raises(InvalidArtifactError, match="bench train"):
        load_supernet(tmp_path)


def test_directory_of_another_run_is_refused(digits, tmp_path):
    _trainer(digits, tmp_path).run()
    with pytest.raises(UsageError, match=r"another recipe: learning_rate was .*, now 0\.01; repeat"):
        _trainer(digits, tmp_path, TINY.model_copy(update={"learning_rate": 0.01})).run()
    with pytest.raises(InvalidArtifactError, match="checkpoint of autovit-nano"):
        Trainer(get_space("autovit-xxs"), digits, TINY, tmp_path).run()


def test_failing_disk_keeps_the_checkpoint_before(digits, tmp_path, monkeypatch):
    recipe = TINY.model_copy(update={"epochs": 2})
    trainer = _trainer(digits, tmp_path, recipe)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    def fill(progress):
        if progress.step == 6:
            monkeypatch.setattr("search.files.os.fsync", full)

    with pytest.raises(BlocktimeError, match="No space left on device"):
        trainer.run(fill)
    assert load_supernet(tmp_path)[1].step == 5
    assert not list(tmp_path.glob(".*.tmp"))


def test_schedule_warms_up_and_ends_near_zero():
    recipe = get_recipe("demo")
    rates = [recipe.learning_rate_at(step, 10) for step in range(recipe.epochs * 10)]
    top = rates.index(max(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(recipe.learning_rate)
    assert rates[0] < recipe.learning_rate / 10
    assert rates[-1] < recipe.learning_rate / 1000


def test_unknown_recipe_and_unfit_batches_are_named(digits, tmp_path):
    with pytest.raises(UsageError, match="default, demo, imagenet"):
        get_recipe("fast")
    with pytest.raises(UsageError, match="smaller batch"):
        _trainer(digits, tmp_path, TINY.model_copy(update={"batch_size": 5000}))
    with pytest.raises(UsageError, match="no resolution"):
        _trainer(digits, tmp_path, TINY.model_copy(update={"resolutions": (100,)}))


def test_sampled_subnets_vary_in_every_stage(digits, tmp_path):
    trainer = _trainer(digits, tmp_path)
    archs = []
    for step in range(200):
        trainer.step = step
        archs += trainer._sample_archs(64)
    for position, stage in enumerate(get_space("autovit-nano").stages):
        seen = {arch.stages[position] for arch in archs if len(arch.stages) > position}
        assert len(seen) > len(stage.options) / 2
    assert {len(arch.stages) for arch in archs} == {3, 4}

"""Training on some of the bundled digits: sampling, schedule, resumption, divergence, damaged checkpoints."""

import json
import signal

import pytest
import torch

from search.spaces import get_space
from search.supernet.recipe.recipe import Recipe, get_recipe
from search.supernet.train.checkpoint import load_supernet, read_info
from tests.support.errors import raises
from tests.support.training import same_weights, supernet_trainer

TINY = Recipe(name="tiny", epochs=1, batch_size=16, learning_rate=1e-3, warmup_epochs=0.2)
"""Five steps of `small`."""


@pytest.fixture(scope="module")
def small(few_digits):
    return few_digits(80)


def _trainer(small, directory, recipe=TINY):
    return supernet_trainer(get_space("autovit-nano"), small, recipe, directory)


def test_interrupted_run_goes_on_bit_by_bit(small, tmp_path):
    whole = _trainer(small, tmp_path / "whole")
    seen = []
    finished = whole.run(seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4, 5]
    assert finished.finished

    def interrupt(progress):
        if progress.step == 2:
            handler = signal.getsignal(signal.SIGINT)
            handler(signal.SIGINT, None)  # as Ctrl-C, which would reach pytest too

    with pytest.raises(KeyboardInterrupt):
        _trainer(small, tmp_path / "cut").run(interrupt)
    assert read_info(tmp_path / "cut").step == 2
    second = _trainer(small, tmp_path / "cut")
    rest = []
    info = second.run(rest.append)
    assert rest == seen[2:]
    assert info == finished
    assert same_weights(whole.task.model, second.task.model)
    again = _trainer(small, tmp_path / "cut").run(lambda p: pytest.fail(f"trained again at {p.step}"))
    assert again == info


def test_loaded_supernet_has_the_trained_weights(small, tmp_path):
    trainer = _trainer(small, tmp_path)
    trainer.run()
    supernet, info = load_supernet(tmp_path)
    assert same_weights(trainer.task.model, supernet)
    assert info.classes == tuple("0123456789")
    assert [p.name for p in tmp_path.glob("*.safetensors")] == [info.tensors]


def test_nan_stops_and_keeps_the_last_checkpoint(small, tmp_path):
    trainer = _trainer(small, tmp_path, TINY.model_copy(update={"epochs": 2}))

    def poison(progress):
        if progress.step == 7:
            with torch.no_grad():
                next(iter(trainer.task.model.parameters())).fill_(float("nan"))

    with raises("training_diverged"):
        trainer.run(poison)
    supernet, info = load_supernet(tmp_path)
    assert info.step == 5
    assert all(p.isfinite().all() for p in supernet.parameters())


def test_damaged_checkpoints_are_refused(small, tmp_path):
    trainer = _trainer(small, tmp_path)
    info = trainer.run()
    tensors, description = tmp_path / info.tensors, tmp_path / "checkpoint.json"
    whole, text = tensors.read_bytes(), description.read_text()
    for damage in (whole[:-100], whole[:40], b"", whole[:-1] + bytes([whole[-1] ^ 1])):
        tensors.write_bytes(damage)
        with raises("damaged_checkpoint"):
            load_supernet(tmp_path)
    tensors.unlink()
    with raises("damaged_checkpoint"):
        load_supernet(tmp_path)
    tensors.write_bytes(whole)
    document = json.loads(text)
    document.pop("sha256")
    document["format"] = 1
    for change, code in (
        ({"tensors": "../../etc/passwd"}, "invalid_checkpoint"),
        ({"format": 3}, "invalid_checkpoint"),
        ({"extra": 1}, "invalid_checkpoint"),
        ({"step": -1}, "invalid_checkpoint"),
        ({"space_digest": "0" * 64}, "space_changed"),
        ({"classes": ["a", "b"]}, "weights_of_another_network"),
    ):
        description.write_text(json.dumps(document | change))
        with raises(code):
            load_supernet(tmp_path)
    description.write_text(text[: len(text) // 2])
    with raises("invalid_checkpoint"):
        load_supernet(tmp_path)
    description.unlink()
    with raises("unreadable_file"):
        load_supernet(tmp_path)


def test_directory_of_another_run_is_refused(small, tmp_path):
    _trainer(small, tmp_path).run()
    with raises("different_run"):
        _trainer(small, tmp_path, TINY.model_copy(update={"weight_decay": 0.01})).run()
    with raises("different_run"):
        _trainer(small, tmp_path, TINY.model_copy(update={"learning_rate": 0.01})).run()
    with raises("different_run"):
        supernet_trainer(get_space("autovit-xxs"), small, TINY, tmp_path).run()


def test_an_edited_description_is_noticed(small, tmp_path):
    _trainer(small, tmp_path).run()
    path = tmp_path / "checkpoint.json"
    text = path.read_text()
    document = json.loads(text)
    for change in ({"step": 4}, {"held_out_top1": 0.99}, {"loss": None}, {"source": "npz:other.npz"}):
        path.write_text(json.dumps(document | change))
        with raises("edited_checkpoint"):
            load_supernet(tmp_path)
    path.write_text(json.dumps({name: value for name, value in document.items() if name != "sha256"}))
    with raises("edited_checkpoint"):
        load_supernet(tmp_path)
    path.write_text(json.dumps(document, indent=4, sort_keys=True))
    assert read_info(tmp_path).step == 5, "white space and order of keys say nothing"


def test_a_run_goes_on_at_another_rate_and_remembers_it(small, tmp_path):
    recipe = TINY.model_copy(update={"epochs": 3})
    rates = []

    def stop_at(number):
        def stop(progress):
            rates.append(progress.learning_rate)
            if progress.step == number:
                signal.getsignal(signal.SIGINT)(signal.SIGINT, None)

        return stop

    with pytest.raises(KeyboardInterrupt):
        _trainer(small, tmp_path, recipe).run(stop_at(2))
    slower = recipe.model_copy(update={"learning_rate": 2e-4, "clip_norm": 1.0})
    with pytest.raises(KeyboardInterrupt):
        _trainer(small, tmp_path, slower).run(stop_at(4))
    rate = [recipe.learning_rate_at, slower.learning_rate_at]
    assert rates == [rate[0](0, 5), rate[0](1, 5), rate[1](2, 5), rate[1](3, 5)]
    with pytest.raises(KeyboardInterrupt):
        _trainer(small, tmp_path, slower).run(stop_at(6))
    finished = _trainer(small, tmp_path, slower.model_copy(update={"clip_norm": 0.5})).run()
    assert [change.model_dump() for change in finished.changes] == [
        {"step": 2, "field": "learning_rate", "before": 1e-3, "after": 2e-4},
        {"step": 2, "field": "clip_norm", "before": 5.0, "after": 1.0},
        {"step": 6, "field": "clip_norm", "before": 1.0, "after": 0.5},
    ]
    assert finished.recipe.clip_norm == 0.5
    assert read_info(tmp_path) == finished


def test_failing_disk_keeps_the_checkpoint_before(small, tmp_path, monkeypatch):
    recipe = TINY.model_copy(update={"epochs": 2})
    trainer = _trainer(small, tmp_path, recipe)

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    def fill(progress):
        if progress.step == 6:
            monkeypatch.setattr("luts.format.files.os.fsync", full)

    with raises("checkpoint_not_saved"):
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


def test_unknown_recipe_and_unfit_batches_are_named(small, tmp_path):
    with raises("unknown_recipe"):
        get_recipe("fast")
    with raises("batch_too_large"):
        _trainer(small, tmp_path, TINY.model_copy(update={"batch_size": 5000}))
    with raises("unknown_resolution"):
        _trainer(small, tmp_path, TINY.model_copy(update={"resolutions": (100,)}))


def test_sampled_subnets_vary_in_every_stage(small, tmp_path):
    trainer = _trainer(small, tmp_path)
    archs = []
    for step in range(200):
        trainer.task.start_step(step)
        archs += trainer.task.archs
    for position, stage in enumerate(get_space("autovit-nano").stages):
        seen = {arch.stages[position] for arch in archs if len(arch.stages) > position}
        assert len(seen) > len(stage.options) / 2
    assert {len(arch.stages) for arch in archs} == {3, 4}

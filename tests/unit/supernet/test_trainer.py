"""Parts, precision, averages, mixed images, workers, logs and the best checkpoint; each run goes on bit by bit."""

import csv
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from luts.format.errors import InvalidArtifactError
from search.spaces import get_space
from search.supernet.data.images import ImageData, rand_augmented, seeded, training_batches
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import Augmentation, Recipe
from search.supernet.recipe.samplers import get_sampler
from search.supernet.recipe.schedule import Part, TrainingSchedule
from search.supernet.train import supernet_task as probe
from search.supernet.train.checkpoint import BEST, load_supernet, read_info
from search.supernet.train.logs import Meter, Progress
from search.supernet.train.optimizer import WeightAverage, gradient_norm
from search.supernet.train.parallel import ComputeSettings, ProcessGroup
from search.supernet.train.trainer import RunState
from tests.support.errors import raises
from tests.support.training import cut_off, same_weights, supernet_trainer

FULL = Recipe(
    name="full",
    epochs=2,
    batch_size=16,
    micro_batches=2,
    learning_rate=1e-3,
    warmup_epochs=0,
    ema_decay=0.9,
    precision="fp16",
    channels_last=True,
    drop_path=0.3,
    augmentation=Augmentation(
        crop="resized", rand_augment="rand-m9-mstd0.5-inc1", erase=0.25, mixup=0.8, cutmix=1.0
    ),
)
"""Everything at once, two steps an epoch of `small`."""

SPACE = get_space("autovit-nano")


def _small_recipe(**changes):
    return Recipe.model_validate(FULL.model_dump() | changes)


def test_run_with_everything_goes_on_bit_by_bit(small, tmp_path):
    recipe = _small_recipe()
    whole = supernet_trainer(SPACE, small, recipe, tmp_path / "whole")
    finished = whole.run()

    cut_off(supernet_trainer(SPACE, small, recipe, tmp_path / "cut"), step=3)
    assert read_info(tmp_path / "cut").step == 2
    second = supernet_trainer(SPACE, small, recipe, tmp_path / "cut")
    assert second.run() == finished
    assert same_weights(whole.task.model, second.task.model)
    assert finished.scaler["scale"] > 0
    assert finished.code is not None
    log = list(csv.DictReader((tmp_path / "cut" / "log.csv").open()))
    assert [int(row["step"]) for row in log] == [4]
    inherited, _ = load_supernet(tmp_path / "cut")
    average = whole.task.average.tensors
    assert all(torch.equal(value, average[name]) for name, value in inherited.named_parameters())
    assert not same_weights(inherited, whole.task.model)


def test_average_follows_as_worked_out_by_hand():
    weight = torch.tensor([1.0])
    average = WeightAverage({"w": weight}, 0.5)
    average.update([torch.tensor([3.0])], step=1)
    assert average.tensors["w"].item() == pytest.approx(1 * 2 / 11 + 3 * 9 / 11)
    average.update([torch.tensor([3.0])], step=1000)
    assert average.tensors["w"].item() == pytest.approx((1 * 2 / 11 + 3 * 9 / 11) / 2 + 1.5)
    with raises("weights_of_another_network"):
        average.load({"v": weight})


def test_parts_of_a_batch_add_up_to_the_mean_gradient(small, tmp_path):
    """Two processes' shares, computed one after another, add up to what one process accumulates."""
    recipe = _small_recipe(precision="fp32", ema_decay=0.0, channels_last=False, clip_norm=0)
    alone = supernet_trainer(SPACE, small, recipe, tmp_path / "a")
    gradients = []
    for rank in range(2):
        one = supernet_trainer(SPACE, small, recipe, tmp_path / "b", group=_Deaf(rank))
        one.train_step()
        gradients.append({n: p.grad for n, p in one.task.model.named_parameters() if p.grad is not None})
    alone.train_step()
    for name, parameter in alone.task.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[0][name] + gradients[1][name])


def test_gradients_are_clipped_to_a_norm(small):
    norms = []
    for clip_norm in (0.0, 0.01):
        recipe = _small_recipe(precision="fp32", clip_norm=clip_norm)
        trainer = supernet_trainer(SPACE, small, recipe, None)
        trainer.train_step()
        norms.append(float(gradient_norm(trainer.task.parameters())))
    assert norms[0] > 0.1
    assert norms[1] == pytest.approx(0.01, rel=1e-4)


class _Deaf(ProcessGroup):
    """One of two processes that hears nothing of the other."""

    def __init__(self, rank):
        super().__init__(rank, 2)

    def sum(self, tensors):
        list(tensors)


def test_too_few_parts_for_all_processes_are_refused(small, tmp_path):
    with raises("uneven_micro_batches"):
        supernet_trainer(SPACE, small, FULL, tmp_path, group=ProcessGroup(0, 3))


def test_workers_make_the_same_batches(small):
    """Fresh images each, so that none comes out of the other's memory."""
    recipe = _small_recipe(precision="fp32", epochs=1)
    schedule = TrainingSchedule(recipe, small.split.train, (64,))
    seen = []
    for workers in (0, 2):
        data = ImageData(small.source)
        data.split = small.split
        seen.append(list(training_batches(data, schedule, recipe, range(4), workers)))
    for (images, labels), (others, other_labels) in zip(*seen, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_and_corrupt_images_are_named_and_nothing_is_lost(tmp_path, workers):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(12):
            pixels = rng.integers(0, 255, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pets" / name / f"{index}.png")
    data = ImageData(open_source(f"imagefolder:{tmp_path}/pets"), largest_side=16)
    recipe = _small_recipe(batch_size=4, precision="fp32", epochs=1)
    victim = int(TrainingSchedule(recipe, data.split.train, (64,)).part(1, 0).indices[0])
    path = (
        tmp_path / "pets" / ("cat", "dog")[victim // 12] / f"{sorted(map(str, range(12)))[victim % 12]}.png"
    )
    for run, damage in enumerate((lambda: path.write_bytes(b"\x89PNG nonsense"), path.unlink)):
        damage()
        folder = tmp_path / f"run{run}"
        trainer = supernet_trainer(SPACE, data, recipe, folder, compute=ComputeSettings(workers=workers))
        with raises("damaged_image"):
            trainer.run()
        assert trainer.step == 1
        assert read_info(folder).step == 1, "what was trained before is saved"
    held_out = [*data.split.search]
    with pytest.raises(InvalidArtifactError):
        data.check(np.array([*held_out, victim]))
    data.check(np.array(held_out))


def test_best_checkpoint_is_stored_next_to_the_last(small, tmp_path):
    trainer = supernet_trainer(
        SPACE, small, _small_recipe(epochs=3, precision="fp32", ema_decay=0.0), tmp_path
    )
    epochs = []
    for top1 in (0.4, 0.7, 0.5):
        progress = trainer.train_step()
        epochs.append(progress.epoch)
        trainer.task.save(RunState(progress.step, progress.loss), {"held_out_top1": top1})
    last, best = read_info(tmp_path), read_info(tmp_path / BEST)
    assert (last.step, last.held_out_top1) == (3, 0.5)
    assert (best.step, best.held_out_top1) == (2, 0.7)
    assert load_supernet(tmp_path / BEST)[1] == best
    assert epochs == [0, 0, 1]


def test_a_run_saves_what_its_probes_score(small, tmp_path):
    info = supernet_trainer(SPACE, small, _small_recipe(epochs=1), tmp_path).run()
    supernet, _ = load_supernet(tmp_path)
    archs = probe.probes(get_sampler("uniform", SPACE.with_classes(10)), 64)
    weights = dict(supernet.named_parameters())
    assert info.held_out_top1 == probe.held_out_top1(supernet, archs, weights, small)
    assert read_info(tmp_path / BEST) == read_info(tmp_path) == info


def test_probes_are_judged_on_held_out_images_with_the_given_weights(small):
    supernet = supernet_trainer(SPACE, small, _small_recipe(), None).task.model
    weights = {name: value.detach().clone() for name, value in supernet.named_parameters()}
    for name, value in weights.items():
        if name.startswith("slots.head"):
            value.zero_()
            if name.endswith("bias"):
                value[3] = 1.0
    share = float((small.source.labels[small.split.search] == 3).mean())
    archs = probe.probes(get_sampler("uniform", SPACE), 64)
    assert len(archs) == probe.PROBES
    assert probe.held_out_top1(supernet, archs, weights, small) == pytest.approx(share)


def test_probe_images_of_a_source_sorted_by_class_are_mixed():
    """512 of 5,000 images; a batch of 128 in the source's order would hold two or three of ten classes."""
    data: Any = SimpleNamespace(split=SimpleNamespace(search=np.arange(5000)))
    chosen = probe.probe_images(data)
    assert sorted(chosen) == list(range(0, 5000, 9))
    assert len(set(chosen[: probe.PROBE_BATCH] // 500)) == 10
    assert np.array_equal(chosen, probe.probe_images(data))


def test_one_network_alone_is_all_that_is_trained_and_judged(small, tmp_path):
    arch = SPACE.sample(random.Random(3))
    trainer = supernet_trainer(SPACE, small, _small_recipe(arch=arch.to_json()), tmp_path)
    before = {name: value.detach().clone() for name, value in trainer.task.model.named_parameters()}
    trained = []
    trainer.run(lambda _: trained.extend(trainer.task.archs))
    own = arch.with_classes(small.classes)
    assert set(trained) == {own}
    assert probe.probes(trainer.task.sampler, 64) == [own]
    after = {name: value.detach() for name, value in trainer.task.model.named_parameters()}
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    for part in trainer.task.model.slices(own):
        part.region(before[part.source]).zero_()
        part.region(after[part.source]).zero_()
    assert all(torch.equal(before[name], value) for name, value in after.items()), "others moved"
    with raises("not_in_space"):
        supernet_trainer(get_space("autovit-xxs"), small, _small_recipe(arch=arch.to_json()), tmp_path)


def test_bf16_computes_nearly_the_same(small, tmp_path):
    losses = {
        precision: supernet_trainer(SPACE, small, _small_recipe(precision=precision), tmp_path)
        .train_step()
        .loss
        for precision in ("fp32", "bf16")
    }
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_fp16_lowers_its_scale_before_it_gives_up(small, tmp_path):
    trainer = supernet_trainer(SPACE, small, _small_recipe(precision="fp16"), tmp_path)
    before = [p.detach().clone() for p in trainer.task.model.parameters()]
    scaled = trainer.task.precision.scaled
    trainer.task.precision.scaled = lambda loss: scaled(loss) * float("inf")
    trainer.train_step()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.task.model.parameters(), strict=True))
    assert trainer.task.precision.state()["scale"] == 65536 / 2
    trainer.task.precision.load_state(trainer.task.precision.state() | {"scale": 1.0})
    with raises("training_diverged"):
        trainer.train_step()


def test_seeded_augmentation_repeats_and_leaves_the_generators_alone(digits):
    part = Part(digits.split.train[:16], 32, 5)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    first, labels = digits.training_batch(part, FULL.augmentation)
    assert torch.equal(torch.rand(2), expected[0])
    assert np.array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    again, _ = digits.training_batch(part, FULL.augmentation)
    assert torch.equal(first, again)
    assert not torch.equal(first, digits.training_batch(part._replace(seed=6), FULL.augmentation)[0])
    assert labels.shape == (16, 10)
    torch.testing.assert_close(labels.sum(1), torch.ones(16))


def test_rand_augment_changes_pixels_by_its_seed():
    """A hundred of them, so that every operation comes at its largest magnitude."""
    images = torch.arange(100 * 3 * 256, dtype=torch.int32).reshape(100, 3, 16, 16).to(torch.uint8)
    with seeded(3):
        changed = rand_augmented(images, "rand-m10-mstd0.5-inc1")
    assert changed.shape == images.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, images)


def test_meter_knows_speed_and_rest():
    ticks = iter([0.0, 1.0, 3.0, 5.0])
    meter = Meter(lambda: next(ticks))
    steps = [Progress(n, 10, 0, 1, 100, loss=n, accuracy=0.5, learning_rate=0.1) for n in (1, 2, 3)]
    first = meter.note(steps[0])
    assert (first.images_per_s, first.left_s, first.loss) == (100.0, 9.0, 1.0)
    meter.note(steps[1])
    third = meter.note(steps[2])
    assert (third.images_per_s, third.left_s, third.loss) == (50.0, 14.0, 2.5)
    assert "50 images/s, 0:00:14 left" in third.line(steps[2])


def test_log_that_can_t_be_written_is_one_line(small, tmp_path):
    (tmp_path / "run" / "log.csv").mkdir(parents=True)
    with raises("log_not_written"):
        supernet_trainer(SPACE, small, _small_recipe(), tmp_path / "run").run()


def test_accuracy_is_of_the_images_of_the_step(small, tmp_path, monkeypatch):
    """Two parts with 3 right each, of 8 images; the recipe's 16 are those of the smallest resolution."""
    trainer = supernet_trainer(SPACE, small, _small_recipe(), tmp_path)
    monkeypatch.setattr(trainer, "_backward", lambda *_: (torch.tensor(0.5), 3.0))
    monkeypatch.setattr(trainer, "_update", lambda *_: None)
    monkeypatch.setattr(trainer.task, "images", lambda _: 8)
    assert trainer.train_step().accuracy == pytest.approx(6 / 8)

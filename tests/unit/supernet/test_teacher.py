"""Teachers that know something of the images; their logits, stored once and never served to another run."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from luts.format.errors import UsageError
from search.spaces import get_space
from search.supernet.data.images import MEAN, STD
from search.supernet.recipe.recipe import Distillation, Recipe
from search.supernet.recipe.schedule import TrainingSchedule
from search.supernet.train.teacher import (
    PACKAGES,
    LabelHeader,
    StoredLabels,
    Teacher,
    TeacherLogits,
    load_teacher,
    load_teachers,
)
from tests.support.errors import raises
from tests.support.training import supernet_trainer


def test_teacher_sees_what_the_subnet_sees(digits, oracle):
    teacher = oracle(digits)
    images, labels = digits.batch(digits.split.train[:64], 8)
    assert torch.equal(teacher.logits(images).argmax(1), labels)
    teacher.check(digits, 8)


def test_teacher_sees_pixels_in_its_own_normalisation():
    model: Any = nn.Identity()
    model.pretrained_cfg = {"input_size": (3, 2, 2), "mean": (0.5, 0.4, 0.0), "std": (0.1, 0.5, 1.0)}
    pixels = torch.full((1, 3, 2, 2), 0.6)
    normalised = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    seen = Teacher("identity", model).logits(normalised)
    torch.testing.assert_close(seen[0, :, 0, 0], torch.tensor([1.0, 0.4, 0.6]))


def test_teacher_at_chance_is_refused(digits):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=10)
    with raises("teacher_at_chance"):
        Teacher("random", model).check(digits, 64)


def test_teacher_checkpoints_load_strictly(tmp_path):
    name = "test_resnet.r160_in1k"
    model = timm.create_model(name, num_classes=10)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pth")
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pth"):
        teacher = load_teacher(f"timm:{name}:{path}", 10)
        loaded = teacher.model.state_dict()
        assert all(torch.equal(loaded[key], state[key]) for key in state)
    state.pop(next(iter(state)))
    save_file(state, tmp_path / "b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    (tmp_path / "c.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:1000])
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": 3}, tmp_path / "number.pth")
    torch.save(model, tmp_path / "whole.pth")
    for path in (
        "b.safetensors",
        "c.safetensors",
        "c.pth",
        "junk.pth",
        "list.pth",
        "number.pth",
        "whole.pth",
    ):
        with raises("invalid_weights"):
            load_teacher(f"timm:{name}:{tmp_path / path}", 10)
    with raises("no_such_path"):
        load_teacher(f"timm:{name}:{tmp_path / 'none.pth'}", 10)


def test_several_teachers_store_logits_in_their_own_folders(tmp_path):
    name = "test_resnet.r160_in1k"
    path = tmp_path / "with,comma.pth"
    torch.save(timm.create_model(name, num_classes=10).state_dict(), path)
    text = f"timm:{name}:{path}"
    first, second = load_teachers(f"{text},{text}", 10, 64, tmp_path / "labels")
    assert (first.name, second.name, first.side, second.side) == (text, text, 64, 64)
    assert (first.labels, second.labels) == (tmp_path / "labels", tmp_path / "labels" / "teacher-2")
    assert [each.labels for each in load_teachers(f"{text},{text}", 10)] == [None, None]
    with raises("too_many_teachers"):
        load_teachers(",".join([text] * 9), 10)


@pytest.mark.parametrize("text", ["resnet18", "timm:", "timm:no_such_model", "timm:resnet26t.untrained"])
def test_unknown_teachers_are_usage_errors(text):
    with pytest.raises(UsageError):
        load_teacher(text, 10)


def test_teacher_for_other_classes_is_refused(tmp_path):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    with raises("class_mismatch"):
        load_teacher(f"timm:test_resnet.r160_in1k:{tmp_path / 'seven.pth'}", 10)


def test_weights_of_an_installed_package_load_by_position(tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "some-teacher-model")
    folder = tmp_path / "some_teacher_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('not to be run')")
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({f"_x{i}": value for i, value in enumerate(state.values())}, folder / "models" / "a.pth")
    with raises("package_missing"):
        load_teacher("timm:tf_efficientnet_lite0", 1000)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_teacher("timm:tf_efficientnet_lite0", 1000).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    with raises("class_mismatch"):
        load_teacher("timm:tf_efficientnet_lite0", 10)


def test_no_teacher_is_downloaded(monkeypatch, tmp_path):
    def no_network(*_, **__):
        pytest.fail("a run must not download")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("socket.create_connection", no_network)
    with raises("no_weights"):
        load_teacher("timm:resnet18", 1000)


def test_teacher_without_trained_weights_is_refused():
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with raises("no_weights"):
        load_teacher(f"timm:{untrained}", 10)


HEADER = LabelHeader(teacher="a" * 64, data="b" * 64, images="c" * 64, classes=4, top_k=2, steps=2, batch=3)
LOGITS = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 5.0, 0.5], [-1.0, 2.5, -1.0, -2.0]])
IMAGES = torch.zeros(3, 3, 8, 8)


class _Asked:
    """Answers with `LOGITS` and counts how often."""

    def __init__(self):
        self.times = 0

    def __call__(self, _images):
        self.times += 1
        return LOGITS


def _never(_images):
    pytest.fail("the teacher was asked although its labels are stored")


def _stored(directory, header=HEADER):
    labels = StoredLabels(directory, header, _Asked())
    labels.logits(0, 7, IMAGES)
    labels.flush()
    return next(directory.glob("*.safetensors"))


def test_the_largest_logits_stay_and_the_others_keep_their_probability(tmp_path):
    _stored(tmp_path)
    found = StoredLabels(tmp_path, HEADER, _never).logits(0, 7, IMAGES)
    assert torch.equal(found.topk(2, 1).values, LOGITS.topk(2, 1).values)
    assert torch.equal(found.topk(2, 1).indices, LOGITS.topk(2, 1).indices)
    torch.testing.assert_close(found.logsumexp(1), LOGITS.logsumexp(1), rtol=1e-3, atol=1e-3)
    first = (torch.tensor([1.0, 2.0]).logsumexp(0) - torch.tensor(2.0).log()).item()
    assert found[0, :2].tolist() == pytest.approx([first, first], rel=1e-3)


def test_all_logits_come_back_as_they_were(tmp_path):
    header = HEADER.model_copy(update={"top_k": 4})
    _stored(tmp_path, header)
    assert torch.equal(StoredLabels(tmp_path, header, _never).logits(0, 7, IMAGES), LOGITS)


def test_partial_epochs_are_completed_and_fewer_logits_served(tmp_path):
    _stored(tmp_path)
    teacher = _Asked()
    again = StoredLabels(tmp_path, HEADER.model_copy(update={"top_k": 1}), teacher)
    again.logits(0, 7, IMAGES)
    assert teacher.times == 0
    again.logits(1, 8, IMAGES)
    again.logits(2, 9, IMAGES)
    assert teacher.times == 2
    again.flush()
    assert len(list(tmp_path.iterdir())) == 2
    whole = StoredLabels(tmp_path, HEADER, _never)
    assert torch.equal(whole.logits(1, 8, IMAGES).argmax(1), LOGITS.argmax(1))


@pytest.mark.parametrize(
    "change",
    [{"teacher": "d" * 64}, {"data": "d" * 64}, {"images": "d" * 64}, {"classes": 5}, {"top_k": 3}],
    ids=lambda change: next(iter(change)),
)
def test_labels_of_another_run_are_refused_by_name(tmp_path, change):
    _stored(tmp_path)
    with raises("different_run") as caught:
        StoredLabels(tmp_path, HEADER.model_copy(update=change), _never).logits(0, 7, IMAGES)
    assert f"other {next(iter(change))}" in str(caught.value)


def test_another_augmentation_seed_is_refused(tmp_path):
    _stored(tmp_path)
    with raises("different_run"):
        StoredLabels(tmp_path, HEADER, _never).logits(0, 8, IMAGES)


def test_damaged_labels_are_refused(tmp_path):
    path = _stored(tmp_path)
    whole = path.read_bytes()
    tensors = load_file(path)
    header = {"header": HEADER.model_dump_json()}
    damages = [whole[:-10], whole[:20], b"", whole[:-1] + bytes([whole[-1] ^ 1]), b"\xff" * 64]
    for damage in damages:
        path.write_bytes(damage)
        with raises("damaged_teacher_labels"):
            StoredLabels(tmp_path, HEADER, _never).logits(0, 7, IMAGES)
    for metadata in (None, header | {"sha256": "0"}, {"header": json.dumps({"format": 2})}):
        save_file(tensors, path, metadata)
        with raises("damaged_teacher_labels"):
            StoredLabels(tmp_path, HEADER, _never).logits(0, 7, IMAGES)


def test_full_disk_keeps_what_was_stored(tmp_path, monkeypatch):
    path = _stored(tmp_path)
    before = path.read_bytes()

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    labels = StoredLabels(tmp_path, HEADER, _Asked())
    labels.logits(1, 8, IMAGES)
    monkeypatch.setattr("luts.format.files.os.fsync", full)
    with raises("labels_not_written"):
        labels.flush()
    assert path.read_bytes() == before


class _Counting(nn.Module):
    """A fixed linear teacher that counts the images of training batches."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 10)
        self.batches = 0

    def forward(self, x):
        self.batches += 1
        return self.fc(x.flatten(1))


def _teacher(labels=None):
    torch.manual_seed(0)
    model: Any = _Counting()
    model.pretrained_cfg = {"input_size": (3, 8, 8)}
    return Teacher("linear", model, labels=labels)


def test_later_epochs_and_runs_ask_no_teacher(tmp_path, monkeypatch, few_digits):
    monkeypatch.setattr(Teacher, "check", lambda *_: None)
    digits = few_digits(32)
    recipe = Recipe(
        name="tiny",
        epochs=3,
        batch_size=16,
        learning_rate=1e-3,
        warmup_epochs=0,
        augmentation_epochs=1,
        distillation=Distillation(kind="soft", tau=2.0),
    )
    space, labels = get_space("autovit-nano"), tmp_path / "labels"
    first = _teacher(labels)
    trainer = supernet_trainer(space, digits, recipe, tmp_path / "a", teacher=first)
    losses, seen = [], []
    trainer.run(lambda progress: losses.append(progress.loss))
    assert trainer.task.schedule.steps_per_epoch == 2
    assert first.model.batches == 2, "one forward for each batch of the only augmented epoch"
    without = supernet_trainer(space, digits, recipe, tmp_path / "b", teacher=_teacher())
    without.run(lambda progress: seen.append(progress.loss))
    assert losses == pytest.approx(seen, rel=1e-3)
    hard = recipe.model_copy(update={"distillation": Distillation(kind="hard"), "sampler": "balanced"})
    second = _teacher(labels)
    supernet_trainer(space, digits, hard, tmp_path / "c", teacher=second).run()
    assert second.model.batches == 0
    other = recipe.model_copy(update={"seed": 1})
    with raises("different_run"):
        supernet_trainer(space, digits, other, tmp_path / "d", teacher=_teacher(labels)).run()
    endless = recipe.model_copy(update={"augmentation_epochs": 0})
    with raises("labels_never_reused"):
        supernet_trainer(space, digits, endless, tmp_path / "e", teacher=_teacher(labels))


def test_labels_serve_batches_of_several_sizes(tmp_path, digits):
    recipe = Recipe(
        name="scales",
        epochs=2,
        batch_size=32,
        learning_rate=1e-3,
        multi_scale=True,
        augmentation_epochs=1,
        distillation=Distillation(kind="soft"),
    )
    schedule = TrainingSchedule(recipe, digits.split.train[:300], (8, 16))
    asked = _teacher(tmp_path)
    stored = TeacherLogits(asked, recipe, digits, schedule)
    sizes = set()
    for step in range(schedule.steps):
        images, _ = digits.training_batch(schedule.part(step, 0), recipe.augmentation)
        sizes.add(len(images))
        expected = _teacher().logits(images)
        torch.testing.assert_close(stored.logits(step, 0, images), expected, rtol=1e-3, atol=1e-2)
    assert sizes == {32, 128}
    assert asked.model.batches == schedule.steps_per_epoch, "each batch once, whatever its size"


@pytest.mark.parametrize(("part", "number"), [(0, 10), (1, 11), (2, 10), (3, 11)])
def test_stored_logits_are_numbered_within_a_process(part, number):
    """Step 5 with two of four parts in each process: its 10th and 11th, in both processes."""
    asked = []
    stored = SimpleNamespace(logits=lambda *what: asked.append(what))
    schedule = SimpleNamespace(data_step=lambda step: step, part=lambda *_: SimpleNamespace(seed=7))
    logits: Any = SimpleNamespace(_stored=stored, _share=2, schedule=schedule)
    TeacherLogits.logits(logits, 5, part, torch.empty(0))
    assert asked[0][:2] == (number, 7)

"""Inherited accuracy with BN statistics of its own; teachers that know something."""

import random

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from luts.errors import InvalidArtifactError, UsageError
from search.spaces import get_space
from search.supernet.checkpoint import load_supernet
from search.supernet.data import ImageData
from search.supernet.evaluate import InheritedAccuracy, recalibrate
from search.supernet.recipe import Recipe
from search.supernet.sources import open_source
from search.supernet.teacher import Teacher, load_teacher
from search.supernet.train import Trainer

TINY = Recipe(name="tiny", epochs=1, batch_size=256, learning_rate=1e-3, warmup_epochs=0)


@pytest.fixture(scope="module")
def digits():
    return ImageData(open_source("digits"))


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    Trainer(get_space("autovit-nano"), digits, TINY, directory).run()
    return load_supernet(directory)


class _Oracle(nn.Module):
    """Knows the labels of given images by their pixels, with a share of mistakes."""

    def __init__(self, data, mistakes=0.0):
        super().__init__()
        images, labels = data.batch(np.arange(len(data.labels)), 8)
        self.images, self.labels, self.mistakes = images.flatten(1), labels.clone(), mistakes

    def forward(self, x):
        nearest = torch.cdist(x.flatten(1), self.images).argmin(1)
        labels = self.labels[nearest]
        wrong = torch.rand(len(labels), generator=torch.Generator().manual_seed(0)) < self.mistakes
        return nn.functional.one_hot((labels + wrong) % 10, 10).float()


def _oracle(data, mistakes=0.0):
    model = _Oracle(data, mistakes)
    model.pretrained_cfg = {"input_size": (3, 8, 8)}
    return Teacher("oracle", model)


def test_recalibration_gives_the_statistics_of_all_batches():
    norm = nn.BatchNorm2d(3)
    batches = [torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(i)) + i for i in range(3)]
    recalibrate(norm, batches)
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert not norm.training
    assert norm.momentum == 0.1


def test_evaluation_is_repeatable_and_leaves_the_supernet_alone(trained, digits):
    supernet, info = trained
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    evaluator = InheritedAccuracy(supernet, info, digits, calibration_images=128)
    archs = [supernet.space.sample(random.Random(seed)) for seed in range(2)]
    first = [evaluator.accuracy(arch) for arch in archs]
    assert first == [evaluator.accuracy(arch) for arch in archs]
    assert all(0 <= accuracy <= 1 for accuracy in first)
    after = supernet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_search_and_final_splits_are_told_apart(trained, digits):
    supernet, info = trained
    search, final = (InheritedAccuracy(supernet, info, digits, final=f) for f in (False, True))
    assert (search.split_name, final.split_name) == ("search", "validation")
    fewer = InheritedAccuracy(supernet, info, digits, calibration_images=64)
    other = InheritedAccuracy(supernet, info.model_copy(update={"weights_sha256": "0" * 64}), digits)
    fingerprints = {e.fingerprint for e in (search, final, fewer, other)}
    assert len(fingerprints) == 4
    assert search.fingerprint == InheritedAccuracy(supernet, info, digits).fingerprint


def test_other_images_or_split_are_refused(trained):
    supernet, info = trained
    with pytest.raises(UsageError, match="same data"):
        InheritedAccuracy(supernet, info, ImageData(open_source("digits"), seed=1))


def test_accuracy_counts_right_answers(trained, digits, monkeypatch):
    supernet, info = trained
    evaluator = InheritedAccuracy(supernet, info, digits)

    class Constant(nn.Module):
        def forward(self, x):
            return nn.functional.one_hot(torch.full((len(x),), 3), 10).float()

    monkeypatch.setattr(evaluator, "network", lambda _arch: Constant())
    share = float((digits.source.labels[digits.split.search] == 3).mean())
    assert evaluator.accuracy(supernet.space.sample(random.Random(0))) == pytest.approx(share)


def test_teacher_sees_what_the_subnet_sees(digits):
    teacher = _oracle(digits)
    images, labels = digits.batch(digits.split.train[:64], 8)
    assert torch.equal(teacher.logits(images).argmax(1), labels)
    teacher.check(digits, 8)


def test_teacher_at_chance_is_refused(digits):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=10)
    with pytest.raises(UsageError, match="about chance"):
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
    for path in ("b.safetensors", "c.safetensors", "c.pth"):
        with pytest.raises(InvalidArtifactError, match="no intact weights"):
            load_teacher(f"timm:{name}:{tmp_path / path}", 10)
    with pytest.raises(UsageError, match="does not exist"):
        load_teacher(f"timm:{name}:{tmp_path / 'none.pth'}", 10)


@pytest.mark.parametrize("text", ["resnet18", "timm:", "timm:no_such_model", "timm:resnet26t.untrained"])
def test_unknown_teachers_are_usage_errors(text):
    with pytest.raises(UsageError):
        load_teacher(text, 10)


def test_teacher_without_trained_weights_is_refused():
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(UsageError, match="no trained weights"):
        load_teacher(f"timm:{untrained}", 10)

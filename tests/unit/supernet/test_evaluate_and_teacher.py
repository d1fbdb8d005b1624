"""Inherited accuracy with BN statistics of its own; teachers that know something."""

import dataclasses
import json
import random

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from luts.errors import InvalidArtifactError, UsageError
from orchestrator.cli.main import app
from search.spaces import get_space
from search.supernet.checkpoint import load_supernet
from search.supernet.data import ImageData, split_source
from search.supernet.evaluate import InheritedAccuracy
from search.supernet.recalibrate import PrefixCache, recalibrate
from search.supernet.recipe import Recipe
from search.supernet.recipe_scope import open_data
from search.supernet.sources import open_source
from search.supernet.teacher import PACKAGES, Teacher, load_teacher
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
    recalibrate(nn.Sequential(norm), batches)
    mean = torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0)
    variance = torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert not norm.training
    assert norm.momentum == 0.1


def test_evaluation_is_repeatable_and_leaves_the_supernet_alone(trained, digits):
    supernet, info = trained
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    evaluator = InheritedAccuracy(supernet, info, digits, calibration_batches=1)
    archs = [supernet.space.sample(random.Random(seed)) for seed in range(2)]
    first = [evaluator.accuracy(arch) for arch in archs]
    assert first == [evaluator.accuracy(arch) for arch in archs]
    assert all(0 <= accuracy <= 1 for accuracy in first)
    after = supernet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_shared_beginnings_change_nothing_but_the_work(trained, digits):
    supernet, info = trained
    rng = random.Random(3)
    archs = [supernet.space.sample(rng) for _ in range(2)]
    archs += [dataclasses.replace(arch, stages=(*arch.stages[:-1], _other_heads(arch))) for arch in archs]
    shared = InheritedAccuracy(supernet, info, digits, calibration_batches=1)
    with_cache = [shared.network(arch).state_dict() for arch in archs]
    for arch, found in zip(archs, with_cache, strict=True):
        alone = InheritedAccuracy(supernet, info, digits, calibration_batches=1).network(arch).state_dict()
        assert all(torch.equal(found[name], alone[name]) for name in alone)

    def no_images(*_):
        pytest.fail("the first stages were run again")

    path = supernet.path(archs[2])
    known = shared.prefixes.longest((archs[2].resolution, *path))[0]
    assert known == len(path) - 1
    network = supernet.extract(archs[2])
    recalibrate(network, map(no_images, [0]), (archs[2].resolution, *path), (), shared.prefixes)
    assert all(torch.equal(network.state_dict()[name], with_cache[2][name]) for name in with_cache[2])


def _other_heads(arch):
    """The last stage with the other number of attention heads."""
    width, depth, heads, *rest = arch.stages[-1]
    return (width, depth, 5 - heads, *rest)


def test_kept_beginnings_stay_within_their_bytes():
    torch.manual_seed(0)
    cache = PrefixCache(max_bytes=4 * 2048)
    batches = [torch.randn(8, 4, 4, 4) for _ in range(1)]
    for index in range(6):
        net = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        recalibrate(net, batches, ("batches", index, "bn", "end"), (1, 2), cache)
    kept = [index for index in range(6) if cache.longest(("batches", index, "bn", "end"))[0]]
    assert kept
    assert kept == list(range(6))[-len(kept) :]
    assert len(kept) < 6


def test_top5_counts_the_first_five_guesses(trained, digits, monkeypatch):
    supernet, info = trained
    evaluator = InheritedAccuracy(supernet, info, digits)

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 9, 8, 7, 6, 5, 4, 3, 2, 1]).expand(len(x), -1)

    monkeypatch.setattr(evaluator, "network", lambda _arch: Constant())
    labels = digits.source.labels[digits.split.search]
    found = evaluator.scores(supernet.space.sample(random.Random(0)))
    assert found.top1 == pytest.approx((labels == 1).mean())
    assert found.top5 == pytest.approx(((labels >= 1) & (labels <= 5)).mean())


def test_validation_images_are_opened_by_the_final_evaluation_alone(tmp_path, monkeypatch):
    """Every decoded image is noted, from training to the search's evaluations; only `--final` sees the rest."""
    opened = set()
    source = open_source("digits")

    def noted(index):
        opened.add(index)
        return source.image(index)

    def watched(_text):
        return dataclasses.replace(source, image=noted)

    monkeypatch.setattr("search.supernet.recipe_scope.open_source", watched)
    monkeypatch.setattr("search.supernet.evaluate.open_source", watched)
    space = get_space("autovit-nano")
    recipe = TINY.model_copy(update={"held_out": 0.4})
    Trainer(space, open_data("digits", space, recipe), recipe, tmp_path, _oracle(ImageData(source))).run()
    arch = tmp_path / "arch.json"
    arch.write_text(space.sample(random.Random(0)).to_json())
    split = split_source(source, fraction=0.4)
    evaluation = ["eval", "--arch", str(arch), "--supernet", str(tmp_path), "--json"]
    searched = json.loads(_bench(*evaluation))
    assert searched["split"] == "search"
    assert 0 <= searched["top1"] <= searched["top5"] <= 1
    assert opened == set(split.train.tolist()) | set(split.search.tolist())
    opened.clear()
    assert json.loads(_bench(*evaluation, "--final"))["split"] == "validation"
    assert opened == set(split.train.tolist()) | set(split.validation.tolist())


def _bench(*arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_architecture_of_another_space_is_refused(trained, digits):
    supernet, info = trained
    foreign = get_space("autovit-xxs").with_classes(10).sample(random.Random(0))
    with pytest.raises(UsageError, match="architecture of space 'autovit-xxs', not of 'autovit-nano'"):
        InheritedAccuracy(supernet, info, digits).accuracy(foreign)


def test_search_and_final_splits_are_told_apart(trained, digits):
    supernet, info = trained
    search, final = (InheritedAccuracy(supernet, info, digits, final=f) for f in (False, True))
    assert (search.split_name, final.split_name) == ("search", "validation")
    fewer = InheritedAccuracy(supernet, info, digits, calibration_batches=1)
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
    (tmp_path / "junk.pth").write_bytes(b"junk" * 100)
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": 3}, tmp_path / "number.pth")
    torch.save(model, tmp_path / "whole.pth")
    for path, why in (
        ("b.safetensors", "Missing key"),
        ("c.safetensors", "header"),
        ("c.pth", ""),
        ("junk.pth", "damaged, or more"),
        ("list.pth", "no state dict"),
        ("number.pth", "no state dict"),
        ("whole.pth", "more than tensors, which is not run"),
    ):
        with pytest.raises(InvalidArtifactError, match=rf"no intact weights .*{why}") as caught:
            load_teacher(f"timm:{name}:{tmp_path / path}", 10)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="does not exist"):
        load_teacher(f"timm:{name}:{tmp_path / 'none.pth'}", 10)


@pytest.mark.parametrize("text", ["resnet18", "timm:", "timm:no_such_model", "timm:resnet26t.untrained"])
def test_unknown_teachers_are_usage_errors(text):
    with pytest.raises(UsageError):
        load_teacher(text, 10)


def test_teacher_for_other_classes_is_refused(tmp_path):
    model = timm.create_model("test_resnet.r160_in1k", num_classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    with pytest.raises(UsageError, match="knows 7 classes, the images have 10") as caught:
        load_teacher(f"timm:test_resnet.r160_in1k:{tmp_path / 'seven.pth'}", 10)
    assert "\n" not in str(caught.value)


def test_weights_of_an_installed_package_load_by_position(tmp_path, monkeypatch):
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "some-teacher-model")
    folder = tmp_path / "some_teacher_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('not to be run')")
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({f"_x{i}": value for i, value in enumerate(state.values())}, folder / "models" / "a.pth")
    with pytest.raises(UsageError, match="pip install some-teacher-model"):
        load_teacher("timm:tf_efficientnet_lite0", 1000)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_teacher("timm:tf_efficientnet_lite0", 1000).model.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    with pytest.raises(UsageError, match="knows 1000 classes, the images have 10"):
        load_teacher("timm:tf_efficientnet_lite0", 10)


def test_no_teacher_is_downloaded(monkeypatch, tmp_path):
    def no_network(*_, **__):
        pytest.fail("a run must not download")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("socket.create_connection", no_network)
    with pytest.raises(UsageError, match="no weights on this machine"):
        load_teacher("timm:resnet18", 1000)


def test_teacher_without_trained_weights_is_refused():
    untrained = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(UsageError, match="no trained weights"):
        load_teacher(f"timm:{untrained}", 10)

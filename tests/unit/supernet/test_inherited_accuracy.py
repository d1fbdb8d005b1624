"""The accuracy that subnets inherit, with BN statistics of their own, and which images it is of."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from luts.format.store import LutStore
from orchestrator.cli.main import app
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import SearchCommand, TargetOptions
from search.algorithms import open_objective
from search.spaces import get_space
from search.supernet.data.images import ImageData, open_data, split_source
from search.supernet.data.sources import open_source
from search.supernet.inherit import InheritedAccuracy, PrefixCache, open_inherited, recalibrate
from search.supernet.train.checkpoint import load_supernet
from tests.support.errors import raises
from tests.support.training import TINY, supernet_trainer
from tests.support.winner_world import make_lut


@pytest.fixture(scope="module")
def trained(tiny_run):
    return load_supernet(tiny_run)


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


def test_what_is_judged_is_run_once_for_all_that_begin_alike(trained, digits, monkeypatch):
    supernet, info = trained
    rng = random.Random(3)
    archs = [supernet.space.sample(rng) for _ in range(2)]
    archs += [dataclasses.replace(arch, stages=(*arch.stages[:-1], _other_heads(arch))) for arch in archs]
    alone = [InheritedAccuracy(supernet, info, digits, calibration_batches=1).scores(arch) for arch in archs]
    shared = InheritedAccuracy(supernet, info, digits, calibration_batches=1)
    assert [shared.scores(arch) for arch in archs[:2]] == alone[:2]
    monkeypatch.setattr(digits, "batch", lambda *_: pytest.fail("the first stages were run again"))
    assert [shared.scores(arch) for arch in archs[2:]] == alone[2:]


def test_what_was_trained_in_bf16_is_judged_in_it_where_the_processor_computes_in_it(
    trained, digits, monkeypatch
):
    supernet, info = trained
    arch = supernet.space.sample(random.Random(3))
    fp32 = InheritedAccuracy(supernet, info, digits, calibration_batches=1)
    recipe = info.recipe.model_copy(update={"precision": "bf16"})
    trained_so = info.model_copy(update={"recipe": recipe})
    monkeypatch.setattr("search.supernet.inherit.computes_in_bf16", lambda _: True)
    bf16 = InheritedAccuracy(supernet, trained_so, digits, calibration_batches=1)
    assert bf16.fingerprint != fp32.fingerprint
    assert bf16.accuracy(arch) == InheritedAccuracy(
        supernet, trained_so, digits, calibration_batches=1
    ).accuracy(arch)
    assert abs(bf16.accuracy(arch) - fp32.accuracy(arch)) < 0.05
    monkeypatch.setattr("search.supernet.inherit.computes_in_bf16", lambda _: False)
    assert (
        InheritedAccuracy(supernet, trained_so, digits).fingerprint
        == InheritedAccuracy(supernet, info, digits).fingerprint
    )


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

    monkeypatch.setattr(evaluator, "network", lambda _arch: nn.Sequential(Constant()))
    labels = digits.source.labels[digits.split.search]
    arch = supernet.space.sample(random.Random(0))
    found = evaluator.scores(arch)
    assert evaluator.accuracy(arch) == found.top1
    assert found.top1 == pytest.approx((labels == 1).mean())
    assert found.top5 == pytest.approx(((labels >= 1) & (labels <= 5)).mean())


def test_validation_images_are_opened_by_the_final_evaluation_alone(tmp_path, monkeypatch, oracle):
    """Every decoded image is noted, from training to the search's evaluations; only `--final` sees the rest."""
    opened = set()
    source = open_source("digits")

    def noted(index):
        opened.add(index)
        return source.image(index)

    def watched(_text):
        return dataclasses.replace(source, image=noted)

    monkeypatch.setattr("search.supernet.data.images.open_source", watched)
    monkeypatch.setattr("search.supernet.inherit.open_source", watched)
    space = get_space("autovit-nano")
    recipe = TINY.model_copy(update={"held_out": 0.4, "batch_size": 128})
    supernet_trainer(
        space, open_data("digits", space, recipe), recipe, tmp_path, teacher=oracle(ImageData(source))
    ).run()
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


def test_the_objective_of_a_folder_is_that_of_its_supernet(tiny_run, digits):
    supernet, info = load_supernet(tiny_run)
    objective = open_objective("inherited-accuracy", tiny_run)
    assert objective.fingerprint == InheritedAccuracy(supernet, info, digits).fingerprint
    assert open_objective("inherited-accuracy", tiny_run, "digits").fingerprint == objective.fingerprint
    with raises("supernet_required"):
        open_objective("inherited-accuracy")


def test_the_likelihood_is_the_mean_probability_of_the_labels(tiny_run, digits):
    judge = open_objective("inherited-likelihood", tiny_run)
    inherited = open_inherited(tiny_run)
    assert judge.fingerprint != inherited.fingerprint
    arch = inherited.supernet.space.with_classes(10).sample(random.Random(0))
    network, labels = inherited.network(arch).eval(), digits.source.labels[digits.split.search]
    with torch.no_grad():
        images = torch.cat(
            [images for images, _ in digits.batches(digits.split.search, arch.resolution, 128)]
        )
        probabilities = network(images).softmax(1).numpy()[range(len(labels)), labels]
    assert judge.accuracy(arch) == pytest.approx(float(np.exp(np.log(probabilities).mean())), rel=1e-4)


def test_architecture_of_another_space_is_refused(trained, digits):
    supernet, info = trained
    foreign = get_space("autovit-xxs").with_classes(10).sample(random.Random(0))
    with raises("not_in_space"):
        InheritedAccuracy(supernet, info, digits).accuracy(foreign)


def test_a_network_trained_alone_is_the_only_one_judged(small, digits, tmp_path):
    space = get_space("autovit-nano")
    first, second = (space.with_classes(10).sample(random.Random(seed)) for seed in range(2))
    recipe = TINY.model_copy(update={"arch": first.with_classes(1000).to_json()})
    supernet_trainer(space, small, recipe, tmp_path / "alone").run()
    evaluator = InheritedAccuracy(*load_supernet(tmp_path / "alone"), digits, calibration_batches=1)
    assert 0 <= evaluator.accuracy(first) <= 1
    with raises("untrained_architecture") as refused:
        evaluator.accuracy(second)
    assert first.to_json() in str(refused.value)
    store = LutStore([tmp_path / "luts"])
    store.write(make_lut())
    targets = TargetOptions(lut="host", latency="100%")
    command = SearchCommand(targets=targets, supernet=tmp_path / "alone", luts=tmp_path / "luts")
    with raises("not_a_supernet"):
        find_network(command)


def test_search_and_final_splits_are_distinguished(trained, digits):
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
    with raises("data_mismatch"):
        InheritedAccuracy(supernet, info, ImageData(open_source("digits"), seed=1))


def test_calibration_images_are_of_all_classes(trained, digits, monkeypatch):
    """Images of a folder are sorted by class; statistics of the first ones would be those of one class."""
    labels = digits.source.labels
    data = ImageData(digits.source)
    by_class = data.split.train[np.argsort(labels[data.split.train], kind="stable")]
    data.split = dataclasses.replace(data.split, train=by_class)
    seen, batches = [], data.batches

    def record(indices, *how):
        seen.append(indices)
        return batches(indices, *how)

    monkeypatch.setattr(data, "batches", record)
    supernet, info = trained
    evaluator = InheritedAccuracy(supernet, info, data, calibration_batches=1, batch_size=100)
    evaluator.network(supernet.space.sample(random.Random(0)))
    assert len(set(labels[seen[0]])) == 10

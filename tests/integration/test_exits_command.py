"""`bench train --sampler exits`, `bench search --adaptive exits` and `bench eval --adaptive` on a tiny supernet."""

import json
import shutil

import numpy as np
import pytest
import torch

from orchestrator.export.lower.parity import run_pte
from search.algorithms import SearchResult
from search.blocks import boundary_bytes, parse_keys
from search.spaces import arch_from_json
from search.supernet.inherit import open_inherited
from tests.support.bench import answer, bench, refused
from tests.support.winner_world import home_with_lut, make_lut

pytestmark = pytest.mark.slow

LIMITS = ("--latency", "100%", "--worst", "260%")


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    with home_with_lut(tmp_path_factory.mktemp("home"), export_cache) as home:
        train = (
            "train --space autovit-nano --data digits --recipe demo --epochs 1 --sampler exits -o supernet"
        )
        answer(*train.split())
        yield home


def command(output, *limits, supernet="supernet"):
    options = ("--confidence", "0.8", "--population", "4", "--generations", "0", "--workers", "1")
    given = ("--lut", "host", "--supernet", supernet)
    return ("search", "--adaptive", "exits", *given, *options, *(limits or LIMITS), "-o", output)


@pytest.fixture(scope="module")
def found(home):
    said = answer(*command("found"))
    return home / "found", said


def test_the_supernet_has_a_head_for_each_number_of_stages(home):
    names = {name.split(".")[1] for name, _ in open_inherited(home / "supernet").supernet.named_parameters()}
    assert {name for name in names if name.startswith("head_")} == {"head_fc_3", "head_fc_4"}


def test_the_record_has_one_network_and_its_exit_priced_by_the_lut(found):
    folder, said = found
    result = SearchResult.load(folder / "result.json")
    cascade, limits, lut = result.cascade.cascade, result.adaptive, make_lut()
    exit_, whole = (arch_from_json(stage.arch) for stage in cascade.stages)
    assert limits.kind == "exits"
    assert exit_.stages == whole.stages[:3]
    assert len(whole.stages) == 4
    tail = whole.keys()[len(exit_.keys()) - 1 :]
    for stage, keys in zip(cascade.stages, (exit_.keys(), tail), strict=True):
        sent = boundary_bytes(parse_keys(keys))
        assert stage.latency_ms == pytest.approx(lut.latency_model.predict(keys, sent).ms)
        assert stage.latency_high_ms == pytest.approx(lut.latency_model.bound_ms(keys, sent, 0.8))
    assert cascade.expected_high_ms <= limits.latency_ms
    assert cascade.worst_high_ms <= limits.worst_ms
    first, second = (stage.latency_ms for stage in cascade.stages)
    assert cascade.expected_ms == pytest.approx(first + cascade.shares[1] * second)
    assert result.cascade.equal.latency_ms <= cascade.expected_ms
    assert "up to the exit" in said
    for number, row in enumerate(cascade.stages, start=1):
        assert json.loads((folder / f"stage{number}.json").read_text()) == json.loads(row.arch)
        assert (folder / f"stage{number}.mlpackage" / "Manifest.json").exists()


@torch.no_grad()
def test_the_exported_segments_compute_the_exit_and_the_network(home, found):
    cascade = SearchResult.load(found[0] / "result.json").cascade.cascade
    inherited = open_inherited(home / "supernet")
    exit_, whole = (inherited.network(arch_from_json(stage.arch)) for stage in cascade.stages)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    logits, features = run_pte((found[0] / "stage1.pte").read_bytes(), (x,))
    (last,) = run_pte((found[0] / "stage2.pte").read_bytes(), (features,))
    for own, expected in ((logits, exit_(x)), (last, whole(x))):
        assert (own - expected).abs().max() < 1e-4 * expected.abs().max()


def test_exported_segments_are_replayed_on_the_search_and_the_validation_images(home, found):
    folder, _ = found
    cascade = SearchResult.load(folder / "result.json").cascade.cascade
    inherited = open_inherited(home / "supernet")
    outputs = [inherited.outputs(arch_from_json(stage.arch)) for stage in cascade.stages]
    correct = [(logits.argmax(1) == labels).numpy() for logits, labels in outputs]
    confident = outputs[0][0].double().softmax(1).max(1).values.numpy() >= cascade.thresholds[0]
    assert cascade.answered == (int(confident.sum()), int((~confident).sum()))
    assert cascade.correct == int(np.where(confident, correct[0], correct[1]).sum())
    evaluate = ("eval", "--adaptive", folder, "--supernet", "supernet", "--json")
    seen = json.loads(answer(*evaluate))
    assert seen["shares"] == pytest.approx(cascade.shares, abs=1.5 / cascade.images)
    assert seen["top1"] == pytest.approx(cascade.accuracy, abs=1.5 / cascade.images)
    first, second = (stage.latency_ms for stage in cascade.stages)
    assert seen["mean_ms"] == pytest.approx(first + seen["shares"][1] * second, rel=1e-3)
    assert seen["worst_ms"] == pytest.approx(first + second)
    final = json.loads(answer(*evaluate, "--final"))
    assert final["split"] == "validation"
    assert final["top1_promised"] == cascade.accuracy


def test_what_cannot_be_is_one_line(home, found, tmp_path):
    first = SearchResult.load(found[0] / "result.json").cascade.cascade.stages[0]
    fastest = 100 * first.latency_ms / make_lut().meta.reference_ms
    below = ("--latency", f"{fastest / 4:.4f}%", "--worst", "260%")
    refused(bench(*command("refused", *below)), 5, "the first exit takes", "--latency")
    shallow = tmp_path / "shallow"
    recipe = tmp_path / "shallow.toml"
    recipe.write_text('extends = "demo"\nepochs = 1\nstage_counts = [3]\n')
    train = ("train", "--space", "autovit-nano", "--data", "digits", "--recipe", recipe)
    refused(bench(*train, "--sampler", "exits", "-o", shallow), 2, "has no exits", "3 stages")
    answer(*train, "-o", shallow)
    refused(bench(*command("refused", supernet=shallow)), 2, "has no exits", "--adaptive cascade")
    copy = shutil.copytree(found[0], tmp_path / "copy")
    document = json.loads((copy / "result.json").read_text())
    document["cascade"]["cascade"]["thresholds"] = [1.0]
    (copy / "result.json").write_text(json.dumps(document))
    evaluate = ("eval", "--supernet", "supernet", "--adaptive", copy)
    refused(bench(*evaluate), 2, "passes threshold 1 of stage 1", "the highest confidence is 0.")
    (copy / "stage1.pte").write_bytes((copy / "stage2.pte").read_bytes())
    shutil.copy(found[0] / "result.json", copy)
    refused(bench(*evaluate), 6, "stage1.pte", "does not take one image")

"""`bench search --adaptive` on a tiny supernet, interrupted and resumed, and `bench eval --adaptive`."""

import json
import shutil

import numpy as np
import pytest

from luts.format.store import LutStore
from orchestrator.accuracy.predictions import PredictionCache
from orchestrator.export.artifacts.artifact import digest
from search.algorithms import Constraints, SearchResult, latency_bounds
from search.spaces import arch_from_json, get_space
from search.supernet.inherit import InheritedAccuracy, open_inherited
from tests.support.bench import answer, bench, refused
from tests.support.winner_world import home_with_lut, make_lut

LIMITS = ("--latency", "100%", "--worst", "220%")

TIGHT = "1.5 times the fastest network"


@pytest.fixture(scope="module")
def home(tmp_path_factory, export_cache):
    with home_with_lut(tmp_path_factory.mktemp("home"), export_cache) as home:
        train = "train --space autovit-nano --data digits --recipe demo --epochs 1 -o supernet"
        answer(*train.split())
        yield home


def command(output, *limits, adaptive=("--adaptive", "cascade")):
    options = ("--confidence", "0.8", "--population", "4", "--generations", "0", "--workers", "1")
    supernet = ("--lut", "host", "--supernet", "supernet")
    return ("search", *adaptive, *supernet, *options, *(limits or LIMITS), "-o", output)


@pytest.fixture(scope="module")
def interrupted(home):
    """Return the folder of a search that is interrupted while it predicts, then repeated, and what it said."""
    written = []

    def write(cache, predictions, original=PredictionCache.write):
        if len(written) == 3:
            raise KeyboardInterrupt
        original(cache, predictions)
        written.append(cache.path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PredictionCache, "write", write)
        assert bench(*command("resumed")).returncode == 130
    assert not (home / "resumed" / "result.json").exists()
    before = {path: path.stat().st_mtime_ns for path in written}
    said = answer(*command("resumed"))
    assert {path: path.stat().st_mtime_ns for path in written} == before, "predictions are not made again"
    return home / "resumed", said


def test_a_resumed_search_finds_what_an_undisturbed_one_finds(home, interrupted, monkeypatch):
    resumed, _ = interrupted
    answer(*command("undisturbed"))
    found, expected = (SearchResult.load(path / "result.json") for path in (resumed, home / "undisturbed"))
    assert found.cascade == expected.cascade
    assert found.evaluated == expected.evaluated
    monkeypatch.setattr(InheritedAccuracy, "outputs", None)
    (resumed / "stage1.pte").unlink()
    answer(*command("resumed"))
    assert digest(resumed / "stage1.pte") == digest(home / "undisturbed" / "stage1.pte")


def test_the_record_has_a_cascade_within_its_limits_and_single_networks(interrupted):
    folder, said = interrupted
    result = SearchResult.load(folder / "result.json")
    cascade, limits = result.cascade.cascade, result.adaptive
    document = json.loads((folder / "result.json").read_text())["cascade"]["cascade"]
    assert document["expected_high_ms"] == cascade.expected_high_ms <= limits.latency_ms
    assert cascade.expected_ms < cascade.expected_high_ms
    assert document["worst_high_ms"] == cascade.worst_high_ms <= limits.worst_ms
    assert cascade.confidence == limits.confidence == 0.8
    assert min(cascade.answered) > 0
    first = cascade.stages[0].latency_ms
    assert cascade.expected_ms == pytest.approx(first + cascade.shares[1] * cascade.stages[1].latency_ms)
    assert result.cascade.equal.latency_ms <= cascade.expected_ms
    assert result.cascade.largest.latency_high_ms <= limits.latency_ms
    assert result.settings.strategy == "pareto"
    assert f"expected {limits.latency_ms:.3f} ms" in said
    assert "best of equal mean latency" in said
    for stage, row in enumerate(cascade.stages, start=1):
        assert json.loads((folder / f"stage{stage}.json").read_text()) == json.loads(row.arch)
        assert (folder / f"stage{stage}.safetensors").stat().st_size > 0
        assert (folder / f"stage{stage}.mlpackage" / "Manifest.json").exists()


def test_shares_and_accuracy_are_those_of_the_networks_in_pytorch(home, interrupted):
    cascade = SearchResult.load(interrupted[0] / "result.json").cascade.cascade
    inherited = open_inherited(home / "supernet")
    outputs = [inherited.outputs(arch_from_json(stage.arch)) for stage in cascade.stages]
    probabilities = [logits.double().softmax(1) for logits, _ in outputs]
    correct = [(logits.argmax(1) == labels).numpy() for logits, labels in outputs]
    confident = probabilities[0].max(1).values.numpy() >= cascade.thresholds[0]
    assert cascade.answered == (int(confident.sum()), int((~confident).sum()))
    assert cascade.correct == int(np.where(confident, correct[0], correct[1]).sum())
    assert [stage.accuracy for stage in cascade.stages] == pytest.approx([each.mean() for each in correct])


def test_exported_stages_are_replayed_on_the_search_and_the_validation_images(home, interrupted):
    folder, _ = interrupted
    cascade = SearchResult.load(folder / "result.json").cascade.cascade
    evaluate = ("eval", "--adaptive", folder, "--supernet", "supernet", "--json")
    seen = json.loads(answer(*evaluate))
    assert (seen["split"], seen["images"]) == ("search", cascade.images)
    assert seen["shares"] == pytest.approx(cascade.shares, abs=1.5 / cascade.images)
    assert seen["top1"] == pytest.approx(cascade.accuracy, abs=1.5 / cascade.images)
    first, second = (stage.latency_ms for stage in cascade.stages)
    assert seen["mean_ms"] == pytest.approx(first + seen["shares"][1] * second, rel=1e-3)
    assert seen["p90_ms"] in (pytest.approx(first), pytest.approx(first + second))
    assert seen["worst_ms"] == pytest.approx(first + second)
    assert "not measured" in seen["latency"]
    final = json.loads(answer(*evaluate, "--final"))
    assert final["split"] == "validation"
    assert final["top1_promised"] == cascade.accuracy
    scores = json.loads((home / "supernet" / "final.json").read_text())["scores"]
    assert [score["arch"].split()[0] for score in scores] == ["cascade"]


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (("--latency", "100%", "--worst", "90%"), 2, ("--worst", "is below --latency", "give at least")),
        (("--latency", "1us", "--worst", "220%"), 5, ("the smallest latency that can be reached",)),
        (("--latency", TIGHT, "--worst", TIGHT), 5, ("the two fastest networks take", "with --worst")),
        (("--latency", "100%"), 2, ("--adaptive needs --worst",)),
        ((*LIMITS, "--finals", "2"), 2, ("leave --finals",)),
    ],
)
def test_limits_that_cannot_be_met_are_one_line(home, limits, code, words):
    tight = [f"{fastest_percent():.4f}%" if text is TIGHT else text for text in limits]
    refused(bench(*command("refused", *tight)), code, *words)
    assert not (home / "refused" / "result.json").exists()


def fastest_percent():
    """Return 1.5 times the upper bound of the fastest network's latency, in percent of the LUT's reference."""
    lut = make_lut()
    constraints = Constraints(latency_ms=1e6, confidence=0.8)
    smallest = latency_bounds(get_space("autovit-nano"), lut, constraints).smallest
    return 150 * smallest.latency_high_ms / lut.meta.reference_ms


def test_another_kind_and_a_lut_without_the_resolutions_are_refused(home):
    refused(bench(*command("refused", adaptive=("--adaptive", "exit"))), 2, "expected cascade or exits")
    refused(bench(*command("refused", *LIMITS, adaptive=())), 2, "--adaptive needs")
    LutStore([home / "other"]).write(make_lut("autovit-cifar16"))
    other = ("--luts", home / "other", "--lut", "host/autovit-cifar16")
    refused(bench(*command("refused"), *other), 2, "is of space autovit-cifar16")


def test_too_few_images_for_a_bound_say_which_bound_they_give(home, monkeypatch):
    """With two held-out images the share of the second stage may be anything up to 97 %."""
    split = InheritedAccuracy.__init__

    def of_two_images(self, *arguments, **options):
        split(self, *arguments, **options)
        self.held_out = self.held_out[:2]

    monkeypatch.setattr(InheritedAccuracy, "__init__", of_two_images)
    percent = f"{1.1 * fastest_percent():.4f}%"
    done = bench(*command("refused", "--latency", percent, "--worst", "220%"))
    refused(done, 5, "2 images bound the mean by", "--point")


def test_other_limits_in_the_same_folder_are_refused(interrupted):
    done = bench(*command(interrupted[0], "--latency", "99%", "--worst", "220%"))
    refused(done, 2, "a search with another limit of a cascade")


def test_a_replay_that_cannot_be_is_one_line(home, interrupted, tmp_path):
    folder, _ = interrupted
    evaluate = ("eval", "--supernet", "supernet", "--adaptive")
    refused(bench(*evaluate, tmp_path), 6, "search again with --adaptive")
    refused(bench(*evaluate, folder, "--precision", "int8"), 2, "--precision does not apply to a cascade")
    copy = shutil.copytree(folder, tmp_path / "copy")
    document = json.loads((copy / "result.json").read_text())
    document["cascade"]["cascade"]["thresholds"] = [1.0]
    (copy / "result.json").write_text(json.dumps(document))
    refused(bench(*evaluate, copy), 2, "passes threshold 1 of stage 1", "the highest confidence is 0.")
    del document["cascade"]
    (copy / "result.json").write_text(json.dumps(document))
    refused(bench(*evaluate, copy), 2, "has no cascade")
    shutil.copy(folder / "result.json", copy)
    (copy / "stage2.pte").unlink()
    refused(bench(*evaluate, copy), 6, "stage2.pte")

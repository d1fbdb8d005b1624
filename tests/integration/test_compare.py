"""Networks and model files in one table: what is judged, kept, refused, and which are best."""

import json
import random
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from luts.format.errors import InvalidArtifactError
from orchestrator.accuracy import program
from orchestrator.accuracy.predictions import Predictions
from orchestrator.export import Artifact
from orchestrator.export.artifacts.artifact import Report
from orchestrator.export.lower.coreml import UnknownOperatorError
from orchestrator.export.lower.source import build_module
from orchestrator.report.draw import write_figure
from orchestrator.report.figures import pareto_figure
from orchestrator.tasks import candidates, compare
from orchestrator.tasks import evaluate as evaluation
from orchestrator.tasks.candidates import read_candidates, seen_by_timm, split_weights
from orchestrator.tasks.compare import compare_networks, latency_cache, pareto
from orchestrator.tasks.evaluate import AccuracyEvaluator, evaluate_row
from orchestrator.tasks.evaluation_options import CompareOptions, EvalConfig, OptionalTarget
from orchestrator.tasks.progress import silent
from orchestrator.tasks.target import Target
from orchestrator.wire.client import ModelFile, file_digest
from search.spaces import get_space
from tests.support.errors import raises

ARCH = get_space("autovit-nano").with_classes(8).sample(random.Random(1))
COUNT = 12
"""Images of each of eight classes."""


@pytest.fixture
def pictures(tmp_path):
    """Images of eight classes, as many as the exported model has outputs."""
    rng = np.random.default_rng(0)
    for label in range(8):
        folder = tmp_path / "pictures" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(COUNT):
            pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return tmp_path / "pictures"


def options(pictures, *networks, **how):
    return CompareOptions(networks=networks, data=f"imagefolder:{pictures}", split="all", **how)


def open_evaluator(pictures, **how):
    config = EvalConfig(data=f"imagefolder:{pictures}", split="all", **how)
    return AccuracyEvaluator.open(config, None, silent)


def weights_of(arch, path):
    from orchestrator.export import ExportSpec

    module, _ = build_module(ExportSpec(arch.keys()))
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, path)
    return path


@pytest.fixture
def as_exported(monkeypatch, exported):
    """Whatever is exported comes out as the tiny model, of as many outputs as there are classes."""

    def export(specs, workers=None, progress=None):
        sha256 = file_digest(exported.path)
        report = Report(
            delegates=1, operators=(), max_abs_error=0, max_relative_error=0, tolerance=1, export_s=1
        )
        return {
            name: Artifact(
                path=exported.path,
                sha256=sha256,
                payload_bytes=1,
                spec=spec,
                cache_key="0" * 64,
                report=report,
            )
            for name, spec in specs.items()
        }, {}

    monkeypatch.setattr(compare, "export_possible", export)


def test_a_file_and_a_network_stand_in_one_table(pictures, exported, as_exported, tmp_path):
    described = tmp_path / "net.json"
    described.write_text(ARCH.to_json())
    weights = weights_of(ARCH, tmp_path / "net.safetensors")
    compared = compare_networks(
        options(pictures, f"{described}:{weights}", images=20, files=(exported.path,))
    )
    network, file = compared.rows
    assert (network["model"], file["model"]) == (str(described), str(exported.path))
    assert (network["params"], file["params"]) == (ARCH.params(), None)
    assert file["file_bytes"] == exported.path.stat().st_size
    assert 0 <= file["top1_low"] < file["top1"] + 0.01 < file["top1_high"] <= 1
    assert (file["pytorch_top1"], file["agreement"]) == (None, None)
    module = build_module(
        candidates.read_candidates([f"{described}:{weights}"], tmp_path, progress=silent)[
            str(described)
        ].spec(Target("host").variant)
    )[0]
    images = open_evaluator(pictures, images=20).images
    pixels = torch.from_numpy(
        np.concatenate(list(images.seen_with(images.normalization, 64).batches(64, 0, 20, 7)))
    )
    with torch.no_grad():
        right = module(pixels).topk(5).indices == torch.from_numpy(images.labels)[:, None]
    assert network["pytorch_top1"] == pytest.approx(right[:, 0].float().mean().item())
    assert network["pytorch_top5"] == pytest.approx(right.any(1).float().mean().item())
    assert (network["top1"], network["agreement"] is None) == (file["top1"], False)
    assert compared.to_dict()["data"]["images"] == 20
    assert [row["pareto"] for row in compared.rows] == [None, None]
    json.dumps(compared.to_dict())


def test_an_unreadable_image_is_named_and_nothing_is_lost(pictures, exported, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "IMAGES_PER_TASK", 10)
    last = pictures / "class7" / f"{COUNT - 1:02d}.png"
    whole = last.read_bytes()
    last.write_bytes(whole[:60] + bytes(len(whole) - 60))
    folder = tmp_path / "out"
    with pytest.raises(InvalidArtifactError, match=rf"class7/{last.name} is not an intact image") as caught:
        compare_networks(options(pictures, files=(exported.path,), output=folder))
    assert "\n" not in str(caught.value)
    last.write_bytes(whole)
    messages = []
    for _ in range(2):
        compare_networks(options(pictures, files=(exported.path,), output=folder), messages.append)
    assert [event.done for event in messages] == [8 * COUNT]


def test_a_comparison_that_was_interrupted_goes_on(pictures, exported, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "IMAGES_PER_TASK", 10)

    def interrupt(event):
        if getattr(event, "done", 0) == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_networks(options(pictures, files=(exported.path,), output=tmp_path), interrupt)
    messages = []
    compare_networks(options(pictures, files=(exported.path,), output=tmp_path), messages.append)
    assert messages[0].done == 40


def test_what_is_refused_is_one_line(pictures, exported, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    (tmp_path / "weights.pth").write_bytes(b"x")
    few = tmp_path / "few"
    shutil.copytree(pictures / "class0", few / "class0")
    cases = [
        (CompareOptions(), "no_network"),
        (CompareOptions(networks=("mobilevit-xxs",)), "nothing_to_compare"),
        (options(pictures, "mobilevit-xxs"), "no_weights"),
        (options(pictures, f"mobilevit-xxs:{tmp_path}/no.safetensors"), "unreadable_file"),
        (options(pictures, f"mobilevit-xxs:{tmp_path}/weights.pth"), "unknown_weights_source"),
        (options("/nowhere", "mobilevit-xxs"), "no_such_path"),
        (options(pictures, "mobilevit-xxs", seen_as="0.5"), "unknown_normalization"),
        (options(few, files=(exported.path,)), "class_mismatch"),
    ]
    for given, code in cases:
        with raises(code) as caught:
            compare_networks(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidArtifactError, match="weights of another network: they lack"):
        compare_networks(options(pictures, f"mobilevit-xxs:{other}"))


def test_networks_and_weights_are_distinguished():
    assert split_weights("timm:a@96") == ("timm:a@96", "")
    assert split_weights("timm:a@96:/x/y.safetensors") == ("timm:a@96", "/x/y.safetensors")
    assert split_weights("autovit-xxs-paper") == ("autovit-xxs-paper", "")
    assert split_weights("/f/a.json:/x/run") == ("/f/a.json", "/x/run")


def test_timms_networks_see_images_as_timm_has_it_and_ours_as_training_does(tmp_path):
    normalization, side = seen_by_timm("tf_efficientnet_lite0")
    assert (normalization.mean, normalization.std, side) == ((0.5,) * 3, (0.5,) * 3, 224)
    assert seen_by_timm("mobilenetv3_small_100@96")[1] == 96
    chosen = read_candidates(["timm:tf_efficientnet_lite0", "mobilevit-xxs"], tmp_path, progress=silent)
    assert chosen["timm:tf_efficientnet_lite0"].normalization.mean == (0.5,) * 3
    assert chosen["mobilevit-xxs"].normalization.mean == (0.485, 0.456, 0.406)
    assert [candidate.weights for candidate in chosen.values()] == [None, None]


def test_a_core_ml_package_is_judged_by_evaluation_or_says_why_not(pictures, tmp_path, monkeypatch):
    opened = open_evaluator(pictures)
    path = tmp_path / "model.mlpackage.zip"

    def classifier(known):
        def guess(path, images, **_):
            if not known:
                raise UnknownOperatorError("no evaluation of the Core ML operator gru")
            count = len(images.indices)
            return Predictions(np.zeros((count, 5), np.int32), 8, np.ones(count))

        return guess

    monkeypatch.setattr(evaluation, "predict_with_program", classifier(True))
    cells = evaluate_row(opened, "net", None, None, ModelFile(path, "0" * 64))
    assert (cells["top1"], cells["accuracy_note"]) == (1 / 8, "")
    assert cells["judged_by"] == "PyTorch, from the Core ML program"
    monkeypatch.setattr(evaluation, "predict_with_program", classifier(False))
    cells = evaluate_row(opened, "net", None, None, ModelFile(path, "0" * 64))
    assert (cells["top1"], cells["judged_by"]) == (None, None)
    assert cells["accuracy_note"] == "no evaluation of the Core ML operator gru"
    cells = evaluate_row(opened, "net", None, None, ModelFile(tmp_path / "net.onnx", "0" * 64))
    assert "are evaluated" in cells["accuracy_note"]


def test_best_are_those_that_none_is_better_and_faster_than():
    def row(top1, ms, pytorch=None):
        return {"top1": top1, "pytorch_top1": pytorch, "ms": ms}

    rows = [
        row(0.9, 10),
        row(0.8, 5),
        row(0.8, 6),
        row(0.7, 20),
        row(0.95, None),
        row(None, 1, 0.1),
        row(0.9, 10),
    ]
    assert pareto(rows) == [True, True, False, False, None, True, True]


def measured(name, ms):
    cells = {"ms": ms, "ci_low": 0.9 * ms, "ci_high": 1.1 * ms, "load_ms": 2.0, "params": 1, "sha256": "0"}
    return {"model": name} | cells


def test_latencies_are_measured_once(pictures, exported, monkeypatch, tmp_path):
    copy = tmp_path / "copy.pte"
    shutil.copy(exported.path, copy)
    calls = []

    class Measured:
        def to_dict(self):
            rows = [measured(str(exported.path), 2.0), measured(str(copy), 1.0)]
            setup = {"device": {"model": "Fake", "simulated": True}, "variant": "v", "noise_floor": 0.01}
            return setup | {"reference": "a", "models": rows, "failures": {"third": "why"}}

    def measure(networks, specs, target, options, *, files, **how):
        calls.append((files, how["memory"]))
        return Measured()

    monkeypatch.setattr(compare, "measure_specs", measure)
    files = (exported.path, copy)

    def run(**how):
        target = OptionalTarget("host")
        return compare_networks(
            options(pictures, images=10, target=target, files=files, output=tmp_path / "out", **how)
        )

    for _ in range(2):
        compared = run()
    assert calls == [(files, True)]
    assert [row["ms"] for row in compared.rows] == [2.0, 1.0]
    assert [row["params"] for row in compared.rows] == [None, None]
    assert [row["pareto"] for row in compared.rows] == [False, True]
    assert (compared.simulated, compared.failures) == (True, {"third": "why"})
    write_figure(tmp_path / "compare.svg", pareto_figure(compared.rows, "Fake, v", "10 images", True))
    drawn = (tmp_path / "compare.svg").read_text()
    assert "SIMULATED" in drawn
    assert ">copy<" in drawn
    run(seed=1)
    assert len(calls) == 2
    for path in (tmp_path / "out" / "latency").iterdir():
        path.write_text("{}")
    with raises("damaged_cache"):
        run()


def test_a_cached_latency_is_of_the_same_agent_and_device_settings(tmp_path):
    """Bug: `bench compare -o` returned cached latencies of another agent, --allow or --fixed-performance."""

    def cache(device="pixel8", **how):
        target = OptionalTarget(device, threads=4, **how)
        return latency_cache(CompareOptions(networks=("a",), target=target, output=tmp_path), {})

    settings: list[dict[str, Any]] = [{}, {"allow": ("throttled",)}, {"fixed_performance": True}]
    assert len({cache(**how) for how in settings}) == len(settings)
    assert cache("host") != cache("host", agent="kotlin")
    assert cache() == cache()

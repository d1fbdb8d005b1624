"""Training, judging and comparing networks for a task, as tasks and as commands."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.tasks.candidates import dense_candidates
from orchestrator.tasks.compare import compare_networks
from orchestrator.tasks.evaluate import evaluate
from orchestrator.tasks.evaluation_options import CompareOptions, EvalOptions
from orchestrator.tasks.train import backbone_weights, train_classifier, train_dense
from orchestrator.tasks.train_options import ClassifierOptions
from search.dense.training import load_dense
from search.networks import build_network
from search.networks.network import is_head
from search.spaces.registry import with_task
from tests.support.bench import answer, bench, invoke
from tests.support.dense_world import dense_options, make_world, smallest_backbone
from tests.support.errors import raises

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")


def refused(done, code, reported):
    assert done.returncode == code, done.stderr
    assert reported in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def backbone():
    return smallest_backbone()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("dense"))


def test_a_run_is_evaluated_as_its_training_did(world):
    plain = evaluate(EvalOptions(supernet=world / "segmentation", on="cpu"))
    assert plain.metrics == load_dense(world / "segmentation")[1].figures
    assert plain.facts["judged"] == "in PyTorch"


def test_other_images_need_the_same_classes(world, tmp_path):
    copied = shutil.copytree(world / "set", tmp_path / "set")
    for part in ("train", "val"):
        path = copied / "annotations" / f"instances_{part}.json"
        document = json.loads(path.read_text())
        document["categories"][0]["name"] = "zebra"
        path.write_text(json.dumps(document))
    with raises("class_mismatch"):
        evaluate(EvalOptions(supernet=world / "detection", data=f"coco:{copied}"))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"precision": "int8"}, "unsupported_precision"),
        ({"precision": "fp32", "runtime": "coreml"}, "option_not_applicable"),
        ({"final": True}, "option_not_applicable"),
        ({"outside": True}, "option_not_applicable"),
        ({"calibration": "digits"}, "option_not_applicable"),
    ],
)
def test_an_evaluation_refuses_what_does_not_apply(world, options, code):
    """Bug: `bench eval --supernet DETECTOR --runtime coreml` evaluated the XNNPACK program."""
    with raises(code):
        evaluate(EvalOptions(supernet=world / "detection", **options))


@pytest.mark.parametrize(
    "options", [{"split": "search"}, {"seen_as": "nonsense"}, {"images": 1}, {"resolution": 64}]
)
def test_a_comparison_of_detectors_refuses_what_does_not_apply(world, options):
    """Bug: `bench compare` of detectors accepted and ignored --split and --seen-as."""
    name = f"{world / 'arch.json'}:{world / 'detection'}"
    with raises("option_not_applicable"):
        compare_networks(CompareOptions(networks=(name,), data=f"coco:{world / 'set'}", **options))


def test_what_can_not_be_compared(world, tmp_path):
    arch = world / "arch.json"
    two = (f"{arch}:{world / 'segmentation'}", f"{arch}:{world / 'detection'}")
    for networks, code in (
        (two, "different_tasks"),
        ((two[0], "mobilevit-xxs"), "different_tasks"),
        ((f"mobilevit-xxs:{world / 'detection'}",), "different_network"),
    ):
        with raises(code):
            compare_networks(CompareOptions(networks=networks, data=f"coco:{world / 'set'}"))
    with raises("nothing_to_compare"):
        compare_networks(CompareOptions(networks=two))
    assert dense_candidates(["mobilevit-xxs", f"mobilevit-xs:{tmp_path}"]) == {}


def test_a_backbone_of_a_file(world, backbone, tmp_path):
    torch.manual_seed(9)
    given = build_network(backbone.blocks()).state_dict()
    save_file(given, tmp_path / "w.safetensors")
    init = str(tmp_path / "w.safetensors")
    options = dense_options("detection", world, tmp_path / "run", freeze_backbone=True, init=init)
    network, _ = load_dense(train_dense(options).folder)
    for name, value in network.state_dict().items():
        if not is_head(name) and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, given[name])


def test_a_backbone_that_a_training_made(world, tmp_path, backbone):
    from orchestrator.tasks.supernets import open_evaluator

    options = ClassifierOptions(
        arch=backbone,
        data="digits",
        output=tmp_path / "alone",
        recipe="finetune",
        epochs=1,
        batch_size=512,
        on="cpu",
    )
    train_classifier(options)
    network = with_task(backbone, "detection", 10)
    weights = backbone_weights(f"supernet:{tmp_path / 'alone'}", network)
    expected = open_evaluator(tmp_path / "alone").network(backbone.with_classes(10)).state_dict()
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(weights.tensors[name], expected[name]) for name in expected)


def test_weights_that_are_none(backbone):
    network = with_task(backbone, "detection", 10)
    with raises("unknown_weights_source"):
        backbone_weights("somewhere", network)
    with raises("unreadable_weights"):
        backbone_weights("nowhere.safetensors", network)


def test_the_commands(world, tmp_path):
    images, arch = f"coco:{world / 'set'}", str(world / "arch.json")
    train = ["train", "detection", "--data", images, "--arch", arch, "--on", "cpu", "--json"]
    facts = json.loads(answer(*train, "-o", tmp_path / "run", "--epochs", "1", "--batch-size", "2"))
    assert facts["steps"] == 2
    assert "SYNTHETIC" in facts["data"]
    judged = json.loads(answer("eval", "--supernet", tmp_path / "run", "--on", "cpu", "--json"))
    assert judged["map"] == facts["map"]
    assert "SYNTHETIC" in judged["data"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--head", "deeplab"], "unknown_head"),
        (["--classes", "3"], "class_mismatch"),
        (["--backbone-rate", "-1"], "invalid_recipe"),
        (["--init", "somewhere"], "unknown_weights_source"),
    ],
)
def test_options_that_do_not_fit(world, tmp_path, arguments, code):
    common = ["train", "detection", "--data", f"coco:{world / 'set'}", "--arch", world / "arch.json"]
    with raises(code):
        invoke(*common, "-o", tmp_path / "run", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "detection", "--distill", "soft"],
        ["train", "detection", "--space", "autovit-nano"],
        ["train", "segmentation", "--compile"],
        ["train", "--freeze-backbone"],
        ["train", "qat", "--on", "cuda"],
        ["train", "qat", "--classes", "77"],
        ["train", "qat", "--space", "no-such-space"],
        ["train", "qat", "--compile"],
        ["train", "qat", "--workers", "9"],
    ],
)
def test_an_option_of_another_training_is_refused(arguments):
    """Bug: `bench train --qat` accepted and ignored --on, --compile, --space, --classes and --workers."""
    result = bench(*arguments, "--data", "digits", "-o", "run")
    assert result.returncode == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("former", [["--qat"], ["--task", "detection"]])
def test_a_former_spelling_names_the_new_command(former):
    with raises("moved_option"):
        invoke("train", *former, "--data", "digits", "-o", "run")


def test_bad_images_end_in_one_line(world, tmp_path):
    copied = shutil.copytree(world / "set", tmp_path / "set")
    path = copied / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [60, 60, 60, 60]
    path.write_text(json.dumps(document))
    common = ["train", "detection", "--arch", str(world / "arch.json"), "-o", str(tmp_path / "run")]
    refused(bench(*common, "--data", f"coco:{copied}"), 6, "outside of image")

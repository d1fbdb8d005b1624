"""Training, judging and comparing networks for a task, as tasks and as commands."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.tasks.compare_dense import compare_dense, dense_runs
from orchestrator.tasks.dense_scores import evaluate_dense
from orchestrator.tasks.train_dense import backbone_weights, train_dense
from search.dense.training import load_run
from search.networks import build_network
from search.networks.network import is_head
from search.spaces.registry import with_task
from tests.support.bench import answer, bench
from tests.support.dense_world import RECIPE, make_world, smallest_backbone

pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `dense`)")
pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra `dense`)")


def refused(done, code, said):
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def backbone():
    return smallest_backbone()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("dense"))


def test_a_run_is_judged_as_its_training_did(world):
    plain = evaluate_dense(world / "segmentation", on="cpu")
    assert plain.figures.to_dict() == plain.info.figures
    assert plain.how == "in PyTorch"


def test_other_images_need_the_same_classes(world, tmp_path):
    copied = shutil.copytree(world / "set", tmp_path / "set")
    for part in ("train", "val"):
        path = copied / "annotations" / f"instances_{part}.json"
        document = json.loads(path.read_text())
        document["categories"][0]["name"] = "zebra"
        path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="'zebra' is not one of the 10 that the head has"):
        evaluate_dense(world / "detection", f"coco:{copied}")


def test_int8_is_refused(world):
    with pytest.raises(UsageError, match="int8"):
        evaluate_dense(world / "detection", precision="int8")


def test_what_can_not_be_compared(world, backbone, tmp_path):
    arch = world / "arch.json"
    two = dense_runs([f"{arch}:{world / 'segmentation'}", f"{arch}:{world / 'detection'}"])
    with pytest.raises(UsageError, match="a detector beside a segmentation network"):
        compare_dense(two, f"coco:{world / 'set'}")
    with pytest.raises(UsageError, match="others are"):
        dense_runs([f"{arch}:{world / 'detection'}", "mobilevit-xxs"])
    with pytest.raises(UsageError, match="the run is of another network"):
        compare_dense(dense_runs([f"mobilevit-xxs:{world / 'detection'}"]), f"coco:{world / 'set'}")
    with pytest.raises(UsageError, match="nothing to compare by"):
        compare_dense(two, None)
    assert dense_runs(["mobilevit-xxs", f"mobilevit-xs:{tmp_path}"]) == {}


def test_a_backbone_of_a_file(world, backbone, tmp_path):
    torch.manual_seed(9)
    given = build_network(backbone.blocks()).state_dict()
    save_file(given, tmp_path / "w.safetensors")
    trained = train_dense(
        "detection",
        backbone,
        f"coco:{world / 'set'}",
        tmp_path / "run",
        RECIPE.model_copy(update={"freeze": True}),
        init=str(tmp_path / "w.safetensors"),
        on="cpu",
    )
    network, _ = load_run(trained.folder)
    for name, value in network.state_dict().items():
        if not is_head(name) and not name.endswith("num_batches_tracked"):
            assert torch.equal(value, given[name])


def test_a_backbone_that_a_training_made(world, tmp_path, backbone):
    from orchestrator.tasks.evaluate import open_evaluator
    from orchestrator.tasks.train import train_supernet
    from search.supernet.recipe.recipe import changed, get_recipe

    recipe = changed(get_recipe("finetune"), {"arch": backbone.to_json(), "epochs": 1, "batch_size": 512}, {})
    train_supernet(None, "digits", tmp_path / "alone", recipe, on="cpu")
    network = with_task(backbone, "detection", 10)
    weights = backbone_weights(f"supernet:{tmp_path / 'alone'}", network)
    expected = open_evaluator(tmp_path / "alone").network(backbone.with_classes(10)).state_dict()
    assert weights.tensors.keys() == expected.keys()
    assert all(torch.equal(weights.tensors[name], expected[name]) for name in expected)


def test_weights_that_are_none(backbone):
    network = with_task(backbone, "detection", 10)
    with pytest.raises(UsageError, match="are not weights"):
        backbone_weights("somewhere", network)
    with pytest.raises(InvalidArtifactError, match="cannot be read|cannot read"):
        backbone_weights("nowhere.safetensors", network)


def test_the_commands(world, tmp_path):
    images, arch = f"coco:{world / 'set'}", str(world / "arch.json")
    train = ["train", "--task", "detection", "--data", images, "--arch", arch, "--on", "cpu", "--json"]
    facts = json.loads(answer(*train, "-o", tmp_path / "run", "--epochs", "1", "--batch-size", "2"))
    assert facts["steps"] == 2
    assert "SYNTHETIC" in facts["data"]
    judged = json.loads(answer("eval", "--supernet", tmp_path / "run", "--on", "cpu", "--json"))
    assert judged["map"] == facts["map"]
    assert "SYNTHETIC" in judged["data"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--distill", "soft"], "--distill is not for --task"),
        (["--space", "autovit-nano"], "--space is not for --task"),
        (["--head", "deeplab"], "detection has no head"),
        (["--classes", "3"], "has 10 categories"),
        (["--backbone-rate", "-1"], "backbone_rate"),
    ],
)
def test_options_that_do_not_fit(world, tmp_path, arguments, said):
    common = [
        "train",
        "--task",
        "detection",
        "--data",
        f"coco:{world / 'set'}",
        "--arch",
        str(world / "arch.json"),
    ]
    refused(bench(*common, "-o", str(tmp_path / "run"), *arguments), 2, said)


def test_bad_images_end_in_one_line(world, tmp_path):
    copied = shutil.copytree(world / "set", tmp_path / "set")
    path = copied / "annotations" / "instances_train.json"
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [60, 60, 60, 60]
    path.write_text(json.dumps(document))
    common = ["train", "--task", "detection", "--arch", str(world / "arch.json"), "-o", str(tmp_path / "run")]
    refused(bench(*common, "--data", f"coco:{copied}"), 6, "outside of image")


def test_a_head_needs_a_task(tmp_path):
    common = ["train", "--data", "digits", "--space", "autovit-nano", "-o", str(tmp_path)]
    refused(bench(*common, "--freeze-backbone"), 2, "need a --task")

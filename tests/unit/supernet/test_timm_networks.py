"""Networks of timm as what is trained: from weights, frozen in part, judged and exported like ours."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from orchestrator.export.lower.source import build_module
from orchestrator.tasks import export
from orchestrator.tasks.evaluate import evaluate
from orchestrator.tasks.evaluation_options import EvalOptions
from orchestrator.tasks.export import ExportCommand, export_networks
from orchestrator.tasks.supernets import open_evaluator
from orchestrator.tasks.train import train_classifier
from orchestrator.tasks.train_options import ClassifierOptions
from orchestrator.tasks.trained import Trained
from orchestrator.winner.card import save_weights
from search.spaces import get_arch, get_space
from search.supernet.inherit import InheritedAccuracy
from search.supernet.train.checkpoint import load_supernet
from search.supernet.train.init_weights import InitialWeights
from search.supernet.train.teacher import load_teacher
from tests.support.errors import raises
from tests.support.training import TINY, supernet_trainer

NAME = "timm:mobilenetv3_small_050"
ARCH = get_arch(f"{NAME}@32").with_classes(10)
RECIPE = TINY.model_copy(update={"arch": ARCH.to_json(), "freeze": 2})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of ImageNet's number of classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(timm.create_model(NAME.removeprefix("timm:")).state_dict(), path)
    return path


def test_a_network_of_timm_is_fine_tuned_judged_and_exported(small, checkpoint, tmp_path, monkeypatch):
    """The exporter builds the very network that was judged, under timm's names."""
    given = load_file(checkpoint)
    initial = InitialWeights(f"{NAME}:{checkpoint}", classes=10)
    trainer = supernet_trainer(get_space(ARCH.space), small, RECIPE, tmp_path / "run", initial=initial)
    own = {name.partition(f"head_{NAME}.")[2]: p for name, p in trainer.task.model.named_parameters()}
    assert {name for name, p in own.items() if p.shape != given[name].shape} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert all(torch.equal(p, given[name]) for name, p in own.items() if not name.startswith("classifier"))
    info = trainer.run()
    assert (info.space, info.scope.params) == (f"{NAME}@32", (ARCH.params(),) * 2)
    moved = {
        name for name, p in own.items() if p.shape == given[name].shape and not torch.equal(p, given[name])
    }
    assert not any(name.startswith(("conv_stem", "bn1", "blocks.0")) for name in moved)
    assert "conv_head.weight" in moved

    monkeypatch.setattr("search.supernet.inherit.open_source", lambda _: small.source)
    monkeypatch.setattr("search.supernet.data.images.split_source", lambda *_: small.split)
    modules = {}

    def built(specs, *_):
        modules.update({spec.module: build_module(spec)[0] for spec in specs.values()})
        return {}

    monkeypatch.setattr(export, "export_all", built)
    judged = evaluate(EvalOptions(supernet=tmp_path / "run", on="cpu"))
    assert judged.arch == ARCH
    assert 0 <= judged.metrics["top1"] <= judged.metrics["top5"] <= 1
    with raises("untrained_architecture"):
        export_networks(ExportCommand(networks=f"{NAME}@64", trained=Trained(supernet=tmp_path / "run")))
    network = open_evaluator(tmp_path / "run").network(ARCH)
    export_networks(ExportCommand(networks=(), trained=Trained(supernet=tmp_path / "run")))
    x = small.batch(small.split.search[:1], 32)[0]
    ((name, module),) = modules.items()
    assert name == f"{NAME}@32"
    with torch.no_grad():
        torch.testing.assert_close(module(x), network(x))


def test_a_fine_tuned_network_teaches_with_the_images_that_it_was_trained_on(small, tmp_path):
    """Weights of timm itself see images with another mean and deviation."""
    name = "timm:tf_efficientnet_lite0"
    arch = get_arch(f"{name}@32").with_classes(10)
    recipe = TINY.model_copy(update={"arch": arch.to_json()})
    supernet_trainer(get_space(arch.space), small, recipe, tmp_path / "run").run()
    supernet, info = load_supernet(tmp_path / "run")
    trained = InheritedAccuracy(supernet, info, small, calibration_batches=1)
    weights = save_weights(trained, arch, tmp_path)
    teacher = load_teacher(f"{name}:{weights}", 10, 32)
    x = small.batch(small.split.search[:2], 32)[0]
    with torch.no_grad():
        torch.testing.assert_close(teacher.logits(x), trained.network(arch)(x), rtol=1e-3, atol=1e-3)
    save_file(load_file(weights), tmp_path / "unsigned.safetensors")
    unsigned = load_teacher(f"{name}:{tmp_path / 'unsigned.safetensors'}", 10, 32)
    assert not torch.allclose(unsigned.seen(x), x)


def test_one_with_tables_besides_weights_trains_and_goes_on(small, tmp_path):
    """EfficientViT looks its biases of attention up in a table that is not a weight."""
    arch = get_arch("timm:efficientvit_m0@64").with_classes(10)
    recipe = RECIPE.model_copy(update={"arch": arch.to_json(), "freeze": 0})
    trainer = supernet_trainer(get_space(arch.space), small, recipe, tmp_path)
    before = [p.detach().clone() for p in trainer.task.model.parameters()]
    assert trainer.train_step().loss > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.task.model.parameters(), strict=True))


def test_what_is_named_badly_or_does_not_fit_is_refused(small, checkpoint, tmp_path):
    other = {name: value for name, value in load_file(checkpoint).items() if name != "conv_stem.weight"}
    save_file(other, tmp_path / "part.safetensors")
    for path, classes, code in (
        (checkpoint, None, "class_mismatch"),
        (tmp_path / "part.safetensors", 10, "weights_of_another_network"),
        (tmp_path / "none.safetensors", 10, "no_such_path"),
    ):
        initial = InitialWeights(f"{NAME}:{path}", classes)
        with raises(code):
            supernet_trainer(get_space(ARCH.space), small, RECIPE, None, initial=initial)
    for name in ("timm:mobilenetv33", "timm:a b"):
        with raises("unknown_timm_model"):
            get_space(name)
    too_many = RECIPE.model_copy(update={"freeze": 60})
    with raises("too_many_frozen_stages"):
        supernet_trainer(get_space(ARCH.space), small, too_many, None)


def test_weights_to_begin_with_name_the_network_too(checkpoint, tmp_path, monkeypatch):
    seen = []

    class SeenError(Exception):
        pass

    def note(_, space, recipe):
        seen.append((space.name, recipe.arch))
        raise SeenError

    monkeypatch.setattr("orchestrator.tasks.train.open_data", note)
    notes = []
    with pytest.raises(SeenError):
        options = ClassifierOptions(
            data="digits", output=tmp_path / "run", recipe="imagenet", init=f"{NAME}:{checkpoint}"
        )
        train_classifier(options, notes.append)
    assert seen == [(f"{NAME}@224", get_arch(NAME).to_json())]
    assert "drop_path has no effect on timm:" in notes[0].text

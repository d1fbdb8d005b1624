"""Exports with trained weights, of a file or inherited, and without: what files compute and say of themselves."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from orchestrator.cli.main import app
from orchestrator.export import ArtifactCache, ExportSpec
from orchestrator.export.build import export_spec
from orchestrator.export.lower.parity import run_pte
from orchestrator.export.lower.source import build_module
from orchestrator.tasks import export
from orchestrator.tasks.export import ExportCommand, Lowering, export_networks
from orchestrator.tasks.supernets import open_evaluator
from orchestrator.tasks.trained import Trained
from orchestrator.winner.card import save_weights
from search.networks import build_network
from search.spaces import get_space
from search.supernet.data.images import open_data
from search.supernet.recipe.recipe import Recipe
from tests.support.errors import raises
from tests.support.training import supernet_trainer

SPACE = get_space("autovit-nano")
ARCHS = [SPACE.sample(random.Random(seed)) for seed in range(2)]
RECIPE = Recipe(name="tiny", epochs=1, batch_size=256, learning_rate=1e-3, warmup_epochs=0)
TIMM = "timm:mobilenetv3_small_050"


def train(folder: Path, **changes: object) -> Path:
    recipe = RECIPE.model_copy(update=changes)
    supernet_trainer(SPACE, open_data("digits", SPACE, recipe), recipe, folder).run()
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Of `bench train --arch`."""
    return train(tmp_path_factory.mktemp("alone"), arch=ARCHS[0].to_json())


@pytest.fixture
def here(monkeypatch, tmp_path):
    """Exports in this process, to a cache of its own."""
    cache = ArtifactCache(tmp_path / "cache")

    def lower(specs, *_):
        return {name: export_spec(spec, cache) for name, spec in specs.items()}

    monkeypatch.setattr(export, "export_all", lower)


def invoke(*options: object) -> tuple[dict[str, object], str]:
    """The one row of `bench export --json`, and stderr."""
    done = CliRunner().invoke(app, ("export", *map(str, options), "--json"), catch_exceptions=False)
    (row,) = json.loads(done.stdout)
    return row, done.stderr


def said_by(file: Path) -> str:
    """What a model's file says of its weights, read by the library that wrote it."""
    if file.suffix == ".pte":
        from executorch.exir._serialize._program import deserialize_pte_binary

        named = deserialize_pte_binary(file.read_bytes()).named_data
        return bytes(named.buffers[named.pte_data["blocktime.weights"].buffer_index]).decode()
    import coremltools

    return coremltools.models.MLModel(str(file), skip_model_load=True).user_defined_metadata[
        "blocktime.weights"
    ]


def written(tmp_path: Path, network: torch.nn.Module) -> Path:
    path = tmp_path / "trained.safetensors"
    save_file(network.state_dict(), path)
    return path


def test_a_network_that_was_trained_alone_computes_what_it_learnt(here, alone, tmp_path):
    file = tmp_path / "net.pte"
    row, stderr = invoke("--supernet", alone, "--backend", "portable", "-o", file)
    evaluator = open_evaluator(alone)
    network = evaluator.network(ARCHS[0].with_classes(10))
    x = evaluator.data.batch(evaluator.data.split.search[:1], 64)[0]
    with torch.no_grad():
        torch.testing.assert_close(run_pte(file.read_bytes(), [x])[0], network(x), rtol=1e-3, atol=1e-4)
    assert row["weights"] == str(alone)
    assert said_by(file) == f"sha256:{row['weights_sha256']}"
    assert "random" not in stderr


@pytest.mark.slow
@pytest.mark.parametrize(("runtime", "name"), [("executorch", "net.pte"), ("coreml", "net.mlpackage")])
def test_random_weights_are_named_wherever_one_looks(here, tmp_path, runtime, name):
    document = tmp_path / "nano.json"
    document.write_text(ARCHS[0].to_json())
    options = ("--arch", document, "--runtime", runtime, "-o", tmp_path / name)
    row, stderr = invoke(*options)
    assert (row["weights"], row["weights_sha256"]) == ("random", None)
    assert said_by(tmp_path / name) == "random, seed 0: for measuring alone"
    assert "random weights, for measuring alone" in stderr
    table = CliRunner().invoke(app, ("export", *map(str, options)), catch_exceptions=False)
    assert "weights" in table.stdout
    assert "random" in table.stdout


def test_a_network_takes_the_weights_of_a_file(here, tmp_path):
    network = build_network(ARCHS[0].blocks()).eval()
    torch.nn.init.constant_(network.get_parameter(list(dict(network.named_parameters()))[-1]), 7.0)
    weights = written(tmp_path, network)
    command = ExportCommand(
        networks=[ARCHS[0]], lowering=Lowering(backend="portable"), trained=Trained(file=weights)
    )
    artifact = export_networks(command)[ARCHS[0].digest]
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            run_pte(artifact.path.read_bytes(), [x])[0], network(x), rtol=1e-3, atol=1e-3
        )


def test_a_fine_tuned_network_of_timm_keeps_its_number_of_classes(monkeypatch, tmp_path):
    taken: dict[str, ExportSpec] = {}
    monkeypatch.setattr(export, "export_all", lambda specs, *_: taken.update(specs) or {})
    network = timm.create_model(TIMM[5:], num_classes=7).eval()
    export_networks(ExportCommand(networks=[TIMM], trained=Trained(file=written(tmp_path, network))))
    module, inputs = build_module(taken[TIMM])
    with torch.no_grad():
        torch.testing.assert_close(module(*inputs), network(*inputs))
    assert module(*inputs).shape == (1, 7)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("0.conv.weight"), r"they lack 0\.conv\.weight \(1 such in all\)"),
        (lambda state: state.update(more=torch.zeros(1)), r"they have also more \(1 such in all\)"),
        (lambda state: state["0.conv.weight"].fill_(torch.nan), r"0\.conv\.weight is not finite"),
        (lambda state: state.update({"0.conv.weight": torch.zeros(2)}), r"0\.conv\.weight is \(2,\), not \("),
    ],
)
def test_weights_that_are_not_the_network_s_are_refused(tmp_path, change, why):
    state = build_network(ARCHS[0].blocks()).state_dict()
    change(state)
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with raises("wrong_weights"):
        export_networks(ExportCommand(networks=[ARCHS[0]], trained=Trained(file=path)))


def test_pickled_weights_are_never_read(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(build_network(ARCHS[0].blocks()).state_dict(), path)
    for network in (ARCHS[0], TIMM):
        with raises("invalid_weights"):
            export_networks(ExportCommand(networks=[network], trained=Trained(file=path)))


def test_what_a_supernet_has_no_weights_for_is_refused(alone, tmp_path):
    whole = train(tmp_path / "whole")
    with raises("untrained_architecture"):
        export_networks(ExportCommand(networks=[ARCHS[1]], trained=Trained(supernet=alone)))
    with raises("missing_network"):
        export_networks(ExportCommand(networks=[], trained=Trained(supernet=whole)))
    with raises("not_of_a_space"):
        export_networks(ExportCommand(networks=[TIMM], trained=Trained(supernet=whole)))
    with raises("several_networks"):
        export_networks(ExportCommand(networks=ARCHS, trained=Trained(file=tmp_path / "w.safetensors")))
    with raises("unreadable_file"):
        export_networks(ExportCommand(networks=ARCHS[:1], trained=Trained(file=tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("a", "--weights", "w", "--supernet", "s"), "two_sources_of_weights"),
        (("a", "--data", "digits"), "supernet_missing"),
        (("a", "--seed", "1"), "calibration_missing"),
        ((), "no_network"),
    ],
)
def test_options_that_exclude_each_other(options, code):
    with raises(code):
        CliRunner().invoke(app, ("export", *options), catch_exceptions=False)


@pytest.mark.parametrize(
    "option", [("--weights", "w"), ("--batch", "8"), ("--keep-fp32", "4"), ("--seed", "1")]
)
def test_blocks_refuse_options_of_networks(option):
    assert CliRunner().invoke(app, ("export", "blocks", "autovit-nano", *option)).exit_code == 2


def test_weights_that_training_left_with_channels_last_are_written_as_they_are(tmp_path) -> None:
    network = build_network(ARCHS[0].blocks()).to(memory_format=torch.channels_last)
    state = network.state_dict()
    assert not all(tensor.is_contiguous() for tensor in state.values())
    evaluator: Any = SimpleNamespace(network=lambda _: network)
    written = load_file(save_weights(evaluator, ARCHS[0], tmp_path))
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())

"""`bench search`: options, the largest networks without a supernet, and a backbone for another task's head."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from luts.format.store import LutStore
from orchestrator.simulate.device import SCENARIOS
from orchestrator.tasks.evaluate import evaluate
from orchestrator.tasks.evaluation_options import EvalOptions
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import profile as profile_space
from orchestrator.tasks.progress import Note
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import (
    ConstraintOptions,
    OptionalDevice,
    SearchCommand,
    SettingOptions,
    TargetOptions,
)
from orchestrator.tasks.target import Target
from orchestrator.tasks.train import train_classifier
from orchestrator.tasks.train_options import ClassifierOptions
from orchestrator.winner.result import FoundNetwork
from orchestrator.winner.winner import LARGEST_FILE
from search.algorithms import AUTOVIT_SETTINGS, Constraints, SearchResult, SearchSettings, search
from search.algorithms.objectives import BackboneAccuracy, MacsObjective
from search.networks import build_network
from search.networks.network import load_backbone
from search.spaces import arch_from_json, get_space
from search.spaces.registry import without_task
from search.supernet.model.weights_file import read_weights
from search.supernet.recipe.recipe import changed, get_recipe
from tests.support.bench import bench
from tests.support.errors import raises
from tests.support.search_world import NANO, Accuracy, make_price
from tests.support.simulated_profiles import alike, profile
from tests.support.winner_world import make_lut

PRICED = [(arch, arch.macs().conv_linear, arch.params()) for arch in NANO]
WITH_HEAD = get_space("autovit-nano.ssdlite")


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("luts", "runs", "cache"):
        monkeypatch.setenv(f"BLOCKTIME_{name.upper()}", str(tmp_path / name))
    LutStore([tmp_path / "luts"]).write(make_lut())
    return tmp_path


def command(**options):
    return SearchCommand(targets=TargetOptions(lut="host", latency="90%"), **options)


def largest_of(constraints, count, draws=10_000, seed=0):
    settings = SearchSettings(
        strategy="largest", population=2 * count, generations=0, draws=draws, seed=seed, skeletons=count
    )
    return search(NANO, make_price(), MacsObjective(), constraints, settings)


def test_options_become_constraints_and_settings():
    limits = vars(ConstraintOptions(params=1_800_000, memory=300_000, point=True))
    assert limits == {"params": 1_800_000, "macs": None, "memory": 300_000, "confidence": 0.95, "point": True}
    settings = SettingOptions(draws=7, skeletons=3, ms_per_loss=500).of("inherited-likelihood")
    assert (settings.draws, settings.skeletons, settings.ms_per_loss) == (7, 3, 500)
    assert (settings.strategy, settings.population, settings.additive) == ("large-first", 356, 0.5)
    assert SettingOptions().of("own").additive == 0
    for name in ("autovit", "coarse-to-fine"):
        assert SettingOptions(strategy=name).of("inherited-accuracy") == AUTOVIT_SETTINGS
        assert SettingOptions(strategy=name).usual_objective == "inherited-accuracy"
    largest = SettingOptions(skeletons=7).of("macs")
    assert (largest.strategy, largest.population, largest.generations) == ("largest", 14, 0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (command(settings=SettingOptions(population=5)), "unused_option"),
        (command(settings=SettingOptions(additive=0.5)), "unused_option"),
        (command(settings=SettingOptions(strategy="nonsense")), "unknown_strategy"),
        (command(settings=SettingOptions(ms_per_loss=1, loss_per_ms=1)), "conflicting_options"),
        (command(objective="nonsense"), "unknown_objective"),
        (command(objective="inherited-accuracy"), "supernet_required"),
        (command(outside=True), "supernet_required"),
        (command(data="digits"), "supernet_required"),
        (command(feedback=True), "missing_option"),
        (command(cluster=True, on="cuda"), "conflicting_options"),
        (command(on="cuda"), "objective_not_movable"),
        (SearchCommand(targets=TargetOptions(lut="nothing", latency="1ms")), "unknown_lut"),
        (SearchCommand(targets=TargetOptions(lut="host", latency="1us")), "infeasible"),
        (command(output=Path(__file__)), "not_a_folder"),
    ],
)
def test_wrong_options_are_refused(home, options, code):
    with raises(code):
        find_network(options)


@pytest.mark.parametrize(
    "given", [("--confidence", "20%"), ("--objectives", "accuracy,beauty"), ("--macs", "9")]
)
def test_values_that_cannot_be_parsed_are_refused(home, given):
    done = bench("search", "--lut", "host", "--latency", "90%", *given)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert given[0] in done.stderr


def test_the_largest_networks_are_exact():
    macs, params = sorted(row[1] for row in PRICED)[900], sorted(row[2] for row in PRICED)[1000]
    constraints = Constraints(latency_ms=1e6, macs=macs, params=params, cautious=False)
    result = largest_of(constraints, 30)
    within = [row for row in PRICED if row[1] <= macs and row[2] <= params]
    wanted = sorted(within, key=lambda row: (-row[1], -row[2]))[:30]
    assert [(row.macs, row.params) for row in result.evaluated[:30]] == [(m, p) for _, m, p in wanted]
    assert [(row.macs, row.params) for row in result.best(30)] == [(m, p) for _, m, p in wanted]
    assert result.winner == result.evaluated[0] == result.largest
    assert max(row.depth for row in result.evaluated) == result.deepest.depth
    assert result.coarse.whole
    assert (result.coarse.feasible, result.coarse.feasible_share) == (len(within), len(within) / len(PRICED))


def test_the_largest_of_a_few_draws():
    constraints = Constraints(latency_ms=1e6, cautious=False)
    few, same = (largest_of(constraints, 5, draws=50, seed=1) for _ in range(2))
    assert few == same
    assert not few.coarse.whole
    assert few.coarse.feasible <= 51
    assert few.winner == largest_of(constraints, 5).winner, "the largest do not depend on draws"


def test_the_largest_networks_as_table_json_and_files(home):
    options = ["search", "--lut", "host", "--latency", "90%", "--top-k", "7", "-o", home / "out"]
    table, document = bench(*options), bench(*options, "--json")
    assert (table.returncode, document.returncode) == (0, 0), table.stderr
    printed = json.loads(document.stdout)
    assert (printed["trained"], printed["largest_by"]) == (False, "conv+linear MACs, then parameters")
    written = json.loads((home / "out" / LARGEST_FILE).read_text())
    assert {name: written[name] for name in ("count", "draws", "seed", "whole", "coarse", "budget")} == {
        name: printed[name] for name in ("count", "draws", "seed", "whole", "coarse", "budget")
    }
    assert "accuracy" not in document.stdout + json.dumps(written)
    assert "the 7 largest by conv+linear MACs, then parameters" in table.stdout
    assert 7 < len(printed["networks"]) <= 14, "and the deepest"
    files = sorted((home / "out" / "networks").glob("*.json"))
    archs = [arch_from_json(file.read_text()).to_json() for file in files]
    assert (
        archs == [row["arch"] for row in printed["networks"]] == [row["arch"] for row in written["networks"]]
    )


def test_a_folder_has_one_search(home):
    for latency, code in (("90%", 0), ("90%", 0), ("80%", 2)):
        done = bench("search", "--lut", "host", "-o", home / "out", "--latency", latency)
        assert done.returncode == code
    assert "another constraint: latency_ms was" in done.stderr


def test_a_folder_of_an_older_version_is_recognised(home):
    find_network(command(output=home / "out"))
    (home / "out" / "result.json").unlink()
    find_network(command(output=home / "out"))
    (home / "out" / "result.json").unlink()
    for other in (SettingOptions(seed=1), SettingOptions(strategy="random", population=5, generations=0)):
        with raises("other_search"):
            find_network(command(output=home / "out", settings=other))


def test_without_an_output_the_folder_is_named_after_the_search(home):
    notes = []
    first = find_network(command(), notes.append)
    assert first.folder.parent == home / "runs"
    assert [str(note) for note in notes] == [f"result folder: {first.folder}"]
    assert find_network(command()).folder == first.folder
    assert find_network(command(settings=SettingOptions(seed=1))).folder != first.folder


def test_torch_is_not_imported_and_infeasible_is_exit_code_5(home):
    code = (
        "import sys; sys.argv[1:] = ['search', '--lut', 'host', '--latency', sys.argv[1], '-o', sys.argv[2]]\n"
        "from orchestrator.cli.main import run\n"
        "try: run()\n"
        "finally: print('torch' in sys.modules, file=sys.stderr)"
    )
    for latency, exit_code in (("1us", 5), ("90%", 0)):
        done = subprocess.run(
            [sys.executable, "-c", code, latency, home / "out"], capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code, done.stderr
        assert done.stderr.endswith("False\n")


def test_the_largest_are_measured_with_random_weights(home, tmp_path):
    lut = LutStore([home / "luts"]).write(profile(SCENARIOS["quiet"], tmp_path / "profile").lut)
    options = ["search", "--lut", lut, "--latency", "90%", "-o", home / "out", "--device", "simulated"]
    done = bench(*options, "--top", "2", "--budget", "1s", "--json")
    assert done.returncode == 0, done.stderr
    assert "random weights" in done.stderr
    printed = json.loads(done.stdout)
    assert [row["arch"] for row in printed["measured"]] == [row["arch"] for row in printed["networks"][:2]]
    assert {row["weights"] for row in printed["measured"]} == {"random"}


def test_the_report_names_each_lut():
    prices = [make_price(), make_price(salt="other")]
    constraints = Constraints(latency_ms=5, further_latency_ms=(6.5,), cautious=False)
    result = search(NANO, prices, Accuracy(), constraints, SearchSettings(population=3, generations=0))
    facts = FoundNetwork(result, None, {}, None).facts()
    assert facts["lut"] == "LUT 1 and LUT 2"
    assert facts["constraints"] == "5.000 ms by LUT 1 and 6.500 ms by LUT 2, by prediction"
    arch = result.winner.architecture()
    first, second = (price.model.predict(arch.keys(), arch.boundary_bytes()).ms for price in prices)
    assert facts["predicted"].startswith(f"{first:.3f} ms (up to ")
    assert f") by LUT 1; {second:.3f} ms (up to " in facts["predicted"]


class OfClassifiers(Accuracy):
    def accuracy(self, arch):
        assert (arch.space, arch.classes) == ("autovit-nano", 7)
        self.calls.append(arch)
        return self.truth(arch)


def test_backbone_and_head_are_priced_together():
    inner, price = OfClassifiers(), make_price(WITH_HEAD)
    settings = SearchSettings(population=4, generations=1, draws=200)
    objective = BackboneAccuracy(inner, 7)
    result = search(WITH_HEAD, [price], objective, Constraints(latency_ms=1e6), settings)
    best = result.winner.architecture()
    assert best.head == "ssdlite"
    predicted = price.model.predict(best.keys(), best.boundary_bytes()).ms
    assert result.winner.latency_ms == pytest.approx(predicted)
    assert result.winner.accuracy == max(inner.truth(arch) for arch in inner.calls)


@pytest.fixture(scope="module")
def supernet(tmp_path_factory):
    """A supernet whose scope is a tenth of the space."""
    params = sorted(arch.with_classes(10).params() for arch in NANO)
    scope = (params[4 * len(params) // 10], params[len(params) // 2])
    values = {"epochs": 1, "batch_size": 512, "params_range": scope}
    recipe = changed(get_recipe("finetune"), values, {})
    options = ClassifierOptions(
        space="autovit-nano",
        data="digits",
        output=tmp_path_factory.mktemp("net") / "net",
        recipe=recipe,
        on="cpu",
    )
    return train_classifier(options)


@pytest.fixture
def backbone(home, supernet):
    """The command of a search by a LUT with a head."""
    lut = LutStore([home / "luts"]).write(make_lut(WITH_HEAD.name))
    return SearchCommand(
        targets=TargetOptions(lut=str(lut), latency="1000%"),
        supernet=supernet.folder,
        settings=SettingOptions(population=6, generations=0, draws=50),
        output=home / "out",
        on="cpu",
        workers=1,
    )


@pytest.mark.slow
def test_a_backbone_search_stays_within_the_scope_and_resumes(backbone, supernet, home):
    notes = []
    found = find_network(backbone, notes.append)
    assert any("proxy" in note.text for note in notes if isinstance(note, Note))
    classifiers = [without_task(row.architecture()).with_classes(10) for row in found.result.evaluated]
    assert {supernet.info.scope.excluded_property(arch) for arch in classifiers} == {""}
    winner = without_task(found.winner.architecture())
    evaluate(EvalOptions(arch=winner, supernet=supernet.folder, on="cpu"))
    provenance = found.result.provenance
    assert provenance.checkpoint == supernet.info.weights_sha256
    assert provenance.objective == "backbone-accuracy"
    arch = arch_from_json((home / "out" / "winner.json").read_text())
    assert arch == found.winner.architecture()
    assert load_backbone(build_network(arch.blocks()), read_weights(found.weights)).loaded
    lines = (supernet.folder / "accuracies.jsonl").read_text()
    assert find_network(backbone).result == found.result
    assert (supernet.folder / "accuracies.jsonl").read_text() == lines, "every accuracy was cached"
    document = found.to_dict()
    assert document["top1"] == found.winner.accuracy
    assert SearchResult.load(home / "out" / "result.json") == found.result


@pytest.mark.slow
def test_a_backbone_is_measured_with_its_head(backbone, home):
    store, plan = LutStore([home / "luts"]), PlanOptions(design=8, heldout=3, removals="none")
    device = alike(home, 1, 1.0)
    made = profile_space(
        ProfileCommand(space=WITH_HEAD.name, target=Target(device), plan=plan, self_test=False, store=store)
    )
    options = dataclasses.replace(
        backbone,
        targets=TargetOptions(lut=str(made.path), latency="1000%"),
        measured_on=OptionalDevice(device),
        top=2,
        budget_s=1,
    )
    notes = []
    found = find_network(options, notes.append)
    assert found.measured is not None
    assert [row.arch for row in found.measured.models] == [row.arch for row in found.result.best(2)]
    assert any("random weights" in str(note) for note in notes)


def test_a_lut_of_another_space_is_refused(backbone, home):
    lut = LutStore([home / "luts"]).write(make_lut("autovit-cifar"))
    with raises("wrong_space"):
        find_network(
            SearchCommand(targets=TargetOptions(lut=str(lut), latency="1s"), supernet=backbone.supernet)
        )

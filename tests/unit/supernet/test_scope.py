"""What a recipe trains, what a checkpoint says of that, and that nothing else is judged without being asked for."""

import contextlib
import json
import random

import pytest
import torch
from typer.testing import CliRunner

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.cli.main import app
from orchestrator.tasks.evaluate import evaluate
from orchestrator.tasks.evaluation_options import EvalOptions
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import ConstraintOptions, SearchCommand, SettingOptions, TargetOptions
from search.algorithms import InProcess, register_objective
from search.spaces import get_arch, get_space
from search.spaces.scope import Scope
from search.supernet.data.images import open_data
from search.supernet.inherit import InheritedAccuracy
from search.supernet.recipe.recipe import Recipe, get_recipe, part_of, scope_of
from search.supernet.recipe.samplers import get_sampler
from search.supernet.train.checkpoint import read_info, write_info
from tests.support.errors import raises
from tests.support.training import supernet_trainer
from tests.support.winner_world import make_lut

NANO = get_space("autovit-nano")
PART = Recipe(
    name="part",
    epochs=1,
    batch_size=256,
    learning_rate=1e-3,
    stage_counts=(4,),
    params_range=(150_000, 200_000),
)
INSIDE = next(a for a in NANO if len(a.stages) == 4 and 150_000 <= a.params() <= 200_000)
LARGE = next(a for a in NANO if len(a.stages) == 4 and a.params() > 200_000)
SHORT = next(a for a in NANO if len(a.stages) == 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("part")
    supernet_trainer(NANO, open_data("digits", NANO, PART), PART, folder).run()
    return folder


@pytest.mark.parametrize("name", ["xxs", "xs", "s"])
def test_a_recipe_draws_the_neighbourhood_of_the_papers_network(name):
    """In 20,000 draws, networks like the paper's (2 % of its parameters) contain each of its choices.

    Its number of stages is drawn as often as others.
    """
    space, recipe, paper = (
        get_space(f"autovit-{name}"),
        get_recipe(f"imagenet-{name}"),
        get_arch(f"autovit-{name}-paper"),
    )
    assert scope_of(recipe, space).excluded_property(paper) == ""
    sampler = get_sampler(recipe.sampler, part_of(recipe, space), within=recipe.params_range)
    rng = random.Random(0)
    drawn = [arch for _ in range(20_000) for arch in sampler.draw(rng, 256)]
    alike = [arch for arch in drawn if len(arch.stages) == len(paper.stages)]
    assert len(alike) / len(drawn) == pytest.approx(1 / len(space.stage_counts), abs=0.02)
    near = [a for a in alike if a.head == paper.head and abs(a.params() / paper.params() - 1) < 0.02]
    assert len(near) > 200
    for stage, values in enumerate(paper.stages):
        for choice, value in enumerate(values):
            assert any(arch.stages[stage][choice] == value for arch in near), (stage, choice)


def test_the_scope_is_what_the_recipe_says_of_the_space():
    assert scope_of(PART, NANO) == Scope(stage_counts=(4,), resolutions=(64,), params=(150_000, 200_000))
    whole = PART.model_copy(update={"stage_counts": (), "params_range": None})
    assert scope_of(whole, NANO) == Scope(stage_counts=(3, 4), resolutions=(64,))
    least = min(a.params() for a in NANO if len(a.stages) == 4)
    small = PART.model_copy(update={"stage_counts": (), "params_range": (1, least - 1)})
    assert scope_of(small, NANO).stage_counts == (3,), "no network of four stages is as small"
    alone = PART.model_copy(update={"arch": INSIDE.to_json()})
    assert scope_of(alone, NANO) == Scope(stage_counts=(4,), resolutions=(64,), params=(INSIDE.params(),) * 2)


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"stage_counts": (5,)}, "unknown_stage_count"), ({"params_range": (1, 2)}, "empty_params_range")],
)
def test_a_recipe_that_trains_nothing_of_the_space_is_refused_in_one_line(changes, code):
    with raises(code):
        scope_of(PART.model_copy(update=changes), NANO)


def test_a_checkpoint_says_its_scope_and_eval_stays_within(folder):
    assert read_info(folder).scope == scope_of(PART, NANO)
    for arch in (LARGE, SHORT):
        with raises("outside_scope"):
            evaluate(EvalOptions(arch=arch, supernet=folder))
    assert 0 <= evaluate(EvalOptions(arch=INSIDE, supernet=folder)).metrics["top1"] <= 1
    assert 0 <= evaluate(EvalOptions(arch=SHORT, supernet=folder, outside=True)).metrics["top1"] <= 1


def test_a_network_outside_is_measured_on_demand_alone(folder, tmp_path):
    (tmp_path / "large.json").write_text(LARGE.to_json())
    command = ("measure", "--device", "simulated", "--arch", tmp_path / "large.json", "--supernet", folder)
    done = CliRunner().invoke(app, [*map(str, command)])
    assert isinstance(done.exception, UsageError)
    assert "is outside of what" in str(done.exception)
    done = CliRunner().invoke(app, [*map(str, command), "--outside", "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["models"][0]["params"] == LARGE.params()


@register_objective("scope-size")
class Size:
    fingerprint = "size"

    def __init__(self, supernet, data):
        pass

    def accuracy(self, arch):
        return arch.params() / 1e6


@pytest.fixture
def search(monkeypatch, folder, tmp_path):
    """A search with nothing exported; its result."""
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    monkeypatch.setattr("orchestrator.tasks.search.export_all", lambda *_: {})
    pool = contextlib.nullcontext(InProcess(Size(None, None)))
    monkeypatch.setattr("orchestrator.tasks.search.ProcessPool", lambda *_: pool)
    LutStore([tmp_path / "luts"]).write(make_lut())

    def run(supernet=folder, limits=None, **options):
        command = SearchCommand(
            targets=TargetOptions(lut="host", latency="1000%"),
            limits=ConstraintOptions(**(limits or {})),
            settings=SettingOptions(population=30, generations=0),
            supernet=supernet,
            output=tmp_path / f"out{len(list(tmp_path.iterdir()))}",
            objective="scope-size",
            **{"workers": 1, **options},
        )
        return find_network(command).result

    return run


def test_a_search_stays_within_the_scope(search, folder):
    scope = read_info(folder).scope
    result = search()
    assert len(result.evaluated) == 30
    assert all(scope.excluded_property(row.architecture()) == "" for row in result.evaluated)
    assert (result.constraints.least_params, result.constraints.params) == scope.params
    assert search(limits={"params": 160_000}).winner.params <= 160_000
    wide = search(outside=True)
    assert wide.winner.params > scope.params[1]
    assert wide.constraints.least_params is None


def test_cpu_objective_gets_a_worker_per_core_next_to_a_gpu(search, monkeypatch):
    asked = []

    def pool(_opener, _fingerprint, workers):
        asked.append(workers)
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.tasks.search.ProcessPool", pool)
    monkeypatch.setattr("orchestrator.tasks.search.usable_cores", lambda: 7)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr(
        InheritedAccuracy, "move_to", lambda judge, *_: setattr(judge, "device", torch.device("cuda"))
    )
    with pytest.raises(KeyboardInterrupt):
        search(workers=None)
    assert asked == [7]


def test_an_old_checkpoint_works_and_says_that_its_scope_is_unknown(folder, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    info = read_info(folder).model_copy(update={"scope": None})
    (old / info.tensors).write_bytes((folder / info.tensors).read_bytes())
    write_info(old, info)
    notes = []
    assert 0 <= evaluate(EvalOptions(arch=SHORT, supernet=old), notes.append).metrics["top1"] <= 1
    assert any("does not record which subnets" in note.text for note in notes)

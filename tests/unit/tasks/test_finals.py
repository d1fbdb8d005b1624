"""Finals of `bench search`: networks trained alone on small images, resumed, and what is refused."""

import contextlib
import json

import pytest

from luts.format.store import LutStore
from orchestrator.tasks import finals as task
from orchestrator.tasks.progress import Note
from orchestrator.tasks.search import find_network
from orchestrator.tasks.search_options import ConstraintOptions, SearchCommand, SettingOptions, TargetOptions
from orchestrator.tasks.train import train_classifier
from search.algorithms import InProcess
from search.algorithms.finals import Finals
from search.spaces import get_space
from search.supernet.model.weights_file import read_weights
from tests.support.errors import raises
from tests.support.winner_world import make_lut

RECIPE = 'extends = "finals"\nepochs = 1\nwarmup_epochs = 0.3\nbatch_size = 256\n'


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("luts", "runs", "cache"):
        monkeypatch.setenv(f"BLOCKTIME_{name.upper()}", str(tmp_path / name))
    LutStore([tmp_path / "luts"]).write(make_lut())
    (tmp_path / "short.toml").write_text(RECIPE)
    monkeypatch.setattr("orchestrator.tasks.search.export_all", lambda *_: {})
    return tmp_path


@pytest.fixture
def trained(monkeypatch):
    """Train in this process; return the seeds and architectures of all trainings."""
    calls, train = [], train_classifier

    def recorded(options):
        calls.append((options.recipe.seed, options.arch.to_json()))
        return train(options)

    monkeypatch.setattr(task, "train_classifier", recorded)
    monkeypatch.setattr(
        task,
        "ProcessPool",
        lambda opener, _fingerprint, _workers: contextlib.nullcontext(InProcess(opener.open())),
    )
    return calls


def command(home, **options):
    given = {
        "limits": ConstraintOptions(params=60_000),
        "settings": SettingOptions(skeletons=4, seed=5),
        "finals": 3,
        "data": "digits",
        "finals_recipe": str(home / "short.toml"),
        "output": home / "out",
        "workers": 1,
        "on": "cpu",
    }
    return SearchCommand(targets=TargetOptions(lut="host", latency="1000%"), **(given | options))


def test_the_winner_was_trained_and_the_report_says_all_of_it(home, trained):
    found = find_network(command(home))
    held = Finals.model_validate(json.loads((home / "out" / "finals.json").read_text()))
    assert held == found.finals
    assert found.winner.arch == held.winner.arch
    assert [seed for seed, _ in trained][:3] == [5, 5, 5]
    assert {seed for seed, _ in trained[3:]} in (set(), {6})
    assert len(trained) == 3 + 2 * held.repeated
    assert held.finals[0].rule == "largest"
    assert held.finals[0].arch == found.result.largest.arch
    assert all(final.top1[0] > 0.05 for final in held.finals)
    assert found.winner.architecture().classes == 10
    assert read_weights(found.weights)
    report = "\n".join(str(part) for part in found.report())
    assert held.verdict() in report
    document = json.loads(json.dumps(found.to_dict()))
    assert document["finals"]["winner"] == held.winner.arch
    assert held.verdict() in (home / "out" / "winner.md").read_text()

    before = len(trained)
    assert find_network(command(home)).finals == held
    assert len(trained) == before, "nothing is trained twice"


def test_a_killed_final_loses_nothing(home, trained, monkeypatch):
    recorded = vars(task)["train_classifier"]

    def killed(options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return recorded(options)

    monkeypatch.setattr(task, "train_classifier", killed)
    with pytest.raises(KeyboardInterrupt):
        find_network(command(home))
    assert len(trained) == 2
    monkeypatch.setattr(task, "train_classifier", recorded)
    held = find_network(command(home)).finals
    assert len(set(trained)) == len(trained) == 3 + 2 * held.repeated


@pytest.mark.slow
def test_other_recipes_and_seeds_are_other_trainings(home, trained):
    find_network(command(home, finals=2, confirm=0))
    assert len(trained) == 2
    (home / "short.toml").write_text(RECIPE.replace("256", "128"))
    find_network(command(home, finals=2, confirm=0))
    assert len(trained) == 4


def test_fewer_networks_than_finals_are_all_trained(home, trained):
    notes = []
    few = ConstraintOptions(
        params=sorted(arch.params() for arch in get_space("autovit-nano").with_classes(10))[2]
    )
    find_network(command(home, limits=few, finals=50, confirm=0), notes.append)
    assert len(trained) in (2, 3)
    assert any(f"only {len(trained)} networks" in note.text for note in notes if isinstance(note, Note))


def test_wrong_finals_are_refused_before_anything_is_trained(home, trained):
    (home / "one.toml").write_text(RECIPE + f"arch = {next(iter(get_space('autovit-nano'))).to_json()!r}\n")
    (home / "broken.toml").write_text("epochs = ")
    for options, code in (
        ({"data": None}, "no_images"),
        ({"data": "npz:missing.npz"}, "no_such_path"),
        ({"finals": 1}, "too_few_finals"),
        ({"finals_recipe": "nonsense"}, "unknown_recipe"),
        ({"finals_recipe": str(home / "one.toml")}, "recipe_of_one_network"),
        ({"finals_recipe": str(home / "broken.toml")}, "invalid_recipe"),
        ({"finals_inherit": True}, "missing_option"),
    ):
        with raises(code):
            find_network(command(home, **options))
    LutStore([home / "luts"]).write(make_lut("autovit-nano.ssdlite"))
    with raises("finals_of_head"):
        find_network(
            SearchCommand(
                targets=TargetOptions(lut="host/autovit-nano.ssdlite", latency="1000%"),
                finals=2,
                data="digits",
            )
        )
    assert trained == []


@pytest.mark.slow
def test_workers_train_in_processes(home):
    found = find_network(command(home, finals=2, confirm=0, workers=2))
    assert len(found.finals.finals) == 2
    assert len(list((home / "out" / "finals").glob("*/checkpoint*"))) >= 2

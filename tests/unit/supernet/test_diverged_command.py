"""A run that diverges, as the command line meets it, and how it goes on; what training tells meanwhile."""

import json

import pytest
from typer.testing import CliRunner

from orchestrator.cli.main import app, exit_code
from orchestrator.tasks.progress import Step
from orchestrator.tasks.train import train_classifier
from orchestrator.tasks.train_options import ClassifierOptions
from search.supernet.train import supernet_task as probe
from search.supernet.train.checkpoint import read_info
from tests.support.errors import raises

RECIPE = """
epochs = 3
batch_size = 20
learning_rate = 1e-4
warmup_epochs = 0
betas = [0.9, 0.0]
clip_norm = 0
held_out = 0.4
"""
"""Seventeen steps an epoch of digits, within which a high rate blows up: steps that are measured by the last
gradient alone go far where that is small."""


class StoppedError(Exception):
    pass


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was stopped after its first epoch."""
    monkeypatch.setattr(probe, "PROBE_IMAGES", 16)
    (tmp_path / "hot.toml").write_text(RECIPE)
    messages = []

    def stop(event):
        messages.append(event)
        if isinstance(event, Step) and event.done == 20:
            raise StoppedError

    with pytest.raises(StoppedError):
        options = ClassifierOptions(
            space="autovit-nano", data="digits", output=tmp_path / "run", recipe=str(tmp_path / "hot.toml")
        )
        train_classifier(options, stop)
    return tmp_path / "run", messages


def train(folder, *options):
    command = ("train", "--space", "autovit-nano", "--data", "digits", "-o", str(folder), "--json")
    recipe = ("--recipe", str(folder.parent / "hot.toml"))
    return CliRunner().invoke(app, (*command, *recipe, *options), catch_exceptions=False)


def test_a_nan_from_the_command_line_ends_in_one_line_and_goes_on_more_slowly(run):
    folder, _ = run
    with raises("training_diverged") as caught:
        train(folder, "--learning-rate", "1")
    assert exit_code(caught.value) == 1
    before = read_info(folder)
    assert before.step == 17, "saved before the rate that blew it up"
    done = train(folder, "--learning-rate", "5e-5")
    assert json.loads(done.stdout)["steps"] == 51
    assert (
        f"note: learning_rate was {before.recipe.learning_rate:g} until step {before.step}, now 5e-05"
        in done.stderr
    )
    last = read_info(folder)
    assert (last.changes[-1].step, last.changes[-1].after) == (before.step, 5e-5)
    assert last.recipe.learning_rate == 5e-5


def test_what_training_tells_is_of_the_step_that_it_tells_it_of(run):
    _, messages = run
    assert [(event.what, event.done, event.total) for event in messages] == [
        ("training", n, 51) for n in range(1, 21)
    ]
    assert [event.detail.partition(",")[0] for event in messages] == ["epoch 1 of 3"] * 17 + [
        "epoch 2 of 3"
    ] * 3
    assert len({event.detail for event in messages}) == 20

"""Subnets are judged on the device that is asked for: every tensor goes there, the result does not change."""

import random
import types

import pytest

from search.algorithms.objectives import ObjectiveOpener, move_objective
from search.spaces import get_space
from search.supernet import inherit as evaluate
from search.supernet.inherit import InheritedAccuracy, open_inherited
from search.supernet.model.supernet import choose_device, workers_on
from search.supernet.train.checkpoint import load_supernet
from tests.support.errors import raises
from tests.support.second_device import DEVICE, SecondDevice

NANO = get_space("autovit-nano")


@pytest.fixture
def judge(tiny_run, few_digits):
    supernet, info = load_supernet(tiny_run)
    return InheritedAccuracy(supernet, info, few_digits(64), calibration_batches=2, batch_size=16)


@pytest.mark.filterwarnings("ignore:.*non-meta parameter.*")
def test_a_subnet_is_judged_on_the_device_with_the_same_result(judge):
    archs = [NANO.sample(random.Random(seed)) for seed in range(2)]
    here = [judge.scores(arch) for arch in archs]
    with SecondDevice() as second:
        judge.move_to(DEVICE)
        assert [judge.scores(arch) for arch in archs] == here
        assert all(p.device == DEVICE for p in judge.network(archs[0]).parameters())
    assert second.ran > 100


def test_devices_by_name(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert choose_device("auto").type == "cpu"
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for on, code in (
        ("cuda", "device_unavailable"),
        ("mps", "device_unavailable"),
        ("tpu", "unknown_device"),
    ):
        with raises(code):
            choose_device(on)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert [choose_device("auto", worker).index for worker in range(3)] == [0, 1, 0]
    assert choose_device("mps").type == "mps"
    assert (workers_on("cuda", 8), workers_on("cpu", 8)) == (2, 8)


def test_workers_use_their_device_and_accuracies_are_stored_by_device(tiny_run, monkeypatch):
    asked = []

    def choose(*arguments):
        asked.append(arguments)
        return DEVICE

    monkeypatch.setattr(evaluate, "choose_device", choose)
    cpu = open_inherited(tiny_run).fingerprint
    with SecondDevice():
        other = ObjectiveOpener("inherited-accuracy", tiny_run, on="cuda").open(3)
    assert asked == [("cuda", 3)]
    assert other.fingerprint != cpu


def test_an_objective_that_cannot_move_is_left_alone_or_refused():
    own = types.SimpleNamespace(fingerprint="own", accuracy=lambda arch: 0.5)
    assert move_objective(own, "cpu") is own
    with raises("objective_not_movable"):
        move_objective(own, "cuda")

"""Which parts stay fp32, from invented costs of each."""

import random

import numpy as np
import pytest
from safetensors.torch import save_file

from orchestrator.export import ExportSpec
from orchestrator.export.lower.source import build_module
from orchestrator.tasks import sensitivity
from orchestrator.tasks.evaluation_options import SensitivityOptions
from orchestrator.tasks.sensitivity import choose, measure_sensitivity
from search.spaces import get_space
from tests.support.bench import invoke
from tests.support.errors import raises

WRONG = {"stem": 1, "body": 30, "neck": 6, "head": 0}
"""Of 100 images those whose guess each part loses in int8, the first ones; more where several are."""


def logits(fp32, *_):
    """Right but for the images that the parts in int8 lose, which add up."""
    given = np.tile([1.0, 0.0], (100, 1))
    given[: sum(lost for part, lost in WRONG.items() if part not in fp32)] = [0.0, 1.0]
    return given


@pytest.mark.parametrize(
    ("within", "kept"),
    [
        (0.4, [()]),
        (0.1, [(), ("body",)]),
        (0.02, [(), ("body",), ("body", "neck")]),
        (0.0, [(), ("body",), ("body", "neck"), ("stem", "body", "neck")]),
    ],
)
def test_costliest_parts_stay_fp32_until_the_loss_is_small(within, kept) -> None:
    labels = {part: f"the {part}" for part in WRONG}
    before, alone, mixes = choose(labels, logits(tuple(WRONG)), np.zeros(100, int), logits, within)
    assert (before.top1.share, before.agreement, before.error) == (1, 1, 0)
    assert [row.what for row in alone] == [
        f"the {part} alone in int8" for part in ("body", "neck", "stem", "head")
    ]
    assert [row.agreement for row in alone] == [0.7, 0.94, 0.99, 1.0]
    assert [mix.keep_fp32 for mix in mixes] == kept
    assert mixes[0].top1.share == 0.63
    assert mixes[-1].top1.share >= 1 - within


def test_all_parts_stay_fp32_if_nothing_helps() -> None:
    worse = np.tile([0.0, 1.0], (100, 1))
    exact = logits(tuple(WRONG))
    _, _, mixes = choose({"a": "a", "b": "b"}, exact, np.zeros(100, int), lambda *_: worse, 0.1)
    assert [mix.keep_fp32 for mix in mixes] == [(), ("a",), ("a", "b")]


def test_error_is_relative_to_the_spread_of_logits() -> None:
    exact = np.array([[1.0, -1.0], [1.0, -1.0]])
    _, (alone,), _ = choose({"a": "a"}, exact, np.zeros(2, int), lambda *_: exact + 0.5, 0.1)
    assert alone.error == pytest.approx(0.5)


@pytest.fixture
def weights(tmp_path):
    """An architecture of ten classes, and random weights of it."""
    arch = get_space("autovit-nano").with_classes(10).sample(random.Random(1))
    (tmp_path / "net.json").write_text(arch.to_json())
    save_file(build_module(ExportSpec(arch.keys()))[0].state_dict(), tmp_path / "net.safetensors")
    return tmp_path


def test_the_fp32_network_runs_once(weights, monkeypatch):
    """Bug: `bench sensitivity` ran the fp32 network over all images twice."""
    calls = []

    class Counted:
        def __init__(self, _module, _calibration, images):
            self.count = len(images.indices)

        def logits(self, keep_fp32):
            calls.append(keep_fp32)
            return np.eye(10)[np.zeros(self.count, int)]

    monkeypatch.setattr(sensitivity, "SimulatedInt8", Counted)
    options = SensitivityOptions(
        network=(str(weights / "net.json"),),
        data="digits",
        weights=weights / "net.safetensors",
        images=5,
        calibration_images=4,
    )
    measure_sensitivity(options)
    assert calls.count(None) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), "no_weights"), (("--weights", "w.safetensors", "-o", "mix.txt"), "wrong_suffix")],
)
def test_what_is_refused(arguments, code):
    with raises(code):
        invoke("sensitivity", "autovit-xxs-paper", "--data", "digits", *arguments)

"""Which parts stay fp32, from made-up costs of each."""

import numpy as np
import pytest

from luts.format.errors import UsageError
from orchestrator.tasks.judge import Question
from orchestrator.tasks.sensitivity import choose, find_mix
from orchestrator.tasks.trained import Trained
from tests.support.bench import bench

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
def test_the_costliest_parts_are_kept_until_little_enough_is_lost(within, kept) -> None:
    labels = {part: f"the {part}" for part in WRONG}
    before, alone, mixes = choose(labels, logits(tuple(WRONG)), np.zeros(100, int), logits, within)
    assert (before.top1.share, before.agreement, before.error) == (1, 1, 0)
    assert [row.what for row in alone] == [
        f"the {part} alone in int8" for part in ("body", "neck", "stem", "head")
    ]
    assert [row.agreement for row in alone] == [0.7, 0.94, 0.99, 1.0]
    assert [mix.fp32 for mix in mixes] == kept
    assert mixes[0].top1.share == 0.63
    assert mixes[-1].top1.share >= 1 - within


def test_where_nothing_helps_all_parts_are_kept() -> None:
    worse = np.tile([0.0, 1.0], (100, 1))
    exact = logits(tuple(WRONG))
    _, _, mixes = choose({"a": "a", "b": "b"}, exact, np.zeros(100, int), lambda *_: worse, 0.1)
    assert [mix.fp32 for mix in mixes] == [(), ("a",), ("a", "b")]


def test_error_is_told_of_the_spread_of_logits() -> None:
    exact = np.array([[1.0, -1.0], [1.0, -1.0]])
    _, (alone,), _ = choose({"a": "a"}, exact, np.zeros(2, int), lambda *_: exact + 0.5, 0.1)
    assert alone.error == pytest.approx(0.5)


def test_it_needs_images_and_weights() -> None:
    with pytest.raises(UsageError, match="give --data"):
        find_mix("autovit-xxs-paper", Question(), trained=Trained())
    with pytest.raises(UsageError, match="random weights have no accuracy to lose"):
        find_mix("autovit-xxs-paper", Question("digits"), trained=Trained())
    said = bench("sensitivity", "--data", "digits", "--arch", "autovit-xxs-paper", "-o", "mix.txt")
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "what --fp32 takes is a .json file" in said.stderr

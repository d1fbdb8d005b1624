"""The study of accuracy at equal throughput: which widths it takes, and what it says of them."""

from types import SimpleNamespace
from typing import Any

import pytest

from search.blocks import check_chain
from tools.studies.attention_accuracy import BLOCKS, Point, conclusion, equally_fast, network


def test_every_share_gets_the_width_of_equal_speed():
    """Nearest by ratio: 90 is nearer to 100 than 115 is, and 60 nearer to it than 180."""
    images_s = {(0, 56): 100.0, (4, 48): 115.0, (4, 52): 90.0, (8, 32): 180.0, (8, 56): 60.0}
    assert equally_fast(images_s, 56) == {0: 56, 4: 52, 8: 56}


@pytest.mark.parametrize("count", [0, 3, BLOCKS])
def test_a_network_has_as_much_attention_as_said(count):
    blocks = network(count, 32, 10)
    check_chain(blocks)
    kinds = [block.kind for block in blocks]
    assert (kinds.count("evit.mha"), kinds.count("evit.ffn")) == (count, BLOCKS - count)


def _point(share, images_s, accuracies):
    measured: Any = SimpleNamespace(throughput=SimpleNamespace(images_s=images_s))
    return Point(share, 32, measured, accuracies)


def test_what_is_said_follows_from_the_accuracies():
    none, some, all_ = (
        _point(0.0, 100.0, (0.50, 0.52)), _point(0.5, 98.0, (0.56, 0.58)), _point(1.0, 104.0, (0.49, 0.57))
    )  # fmt: skip
    said = conclusion([none, some, all_])
    assert "Best on average at a share of 50%, +6.0 points to FFN alone; all of its seeds are above" in said
    assert "between 0.98 and 1.04 of that of FFN alone" in said
    assert "the seeds overlap" in conclusion([none, all_])
    assert "FFN alone is best" in conclusion([_point(0.0, 100.0, (0.6,)), all_])

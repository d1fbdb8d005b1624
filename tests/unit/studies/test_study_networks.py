"""What the studies compare is equally large, and attention lies where it should."""

import pytest

from luts.format.errors import UsageError
from search.blocks import check_chain, count, parse_key
from search.blocks.efficientvit import FfnBlock
from tools.studies._networks import (
    HEADS,
    TOLERANCE,
    attention,
    check_equal,
    classifier,
    equal_ffn,
    ffn,
    spread,
)
from tools.studies.attention_share import BLOCKS, CHANNELS, COUNTS, RESOLUTION, networks


@pytest.mark.parametrize("sees", HEADS)
def test_networks_of_any_share_are_equally_large_and_deep(sees):
    found = networks(sees, COUNTS, CHANNELS, RESOLUTION)
    sizes = [count(blocks)[0] for blocks in found.values()]
    assert max(sizes) <= (1 + TOLERANCE) * min(sizes)
    for number, blocks in found.items():
        check_chain(blocks)
        assert len(blocks) == BLOCKS + 2
        assert sum(block.kind == HEADS[sees] for block in blocks) == number


def test_classifiers_differ_in_what_heads_see_and_not_in_size():
    full, split = (classifier(sees, 4, 48, 4, 8, 10) for sees in ("full", "split"))
    check_equal([full, split])
    assert [block.kind for block in full].count("evit.mha") == 4
    assert [block.kind.replace("cga", "mha") for block in split] == [block.kind for block in full]
    check_chain(full)
    check_chain(split)


def test_heads_that_see_all_channels_have_the_parameters_of_the_formula():
    """48 channels, 4 heads, q, k and v of 12: 4 (48 + 2) 36 for them, 4 (9 + 2) 12 for the depthwise convolutions,
    4 x 64 relative biases, 48 x 48 + 2 x 48 for the projection."""
    assert attention("full", 48, 4, 12, 8).params() == 7200 + 528 + 256 + 2400


def test_attention_is_spread_evenly():
    assert spread(0, 4) == (False,) * 4
    assert spread(4, 4) == (True,) * 4
    assert spread(2, 6) == (False, True, False, False, True, False)
    for number in range(11):
        assert sum(spread(number, 10)) == number
    with pytest.raises(ValueError, match="5 blocks of attention in 4 places"):
        spread(5, 4)


def test_an_ffn_has_the_asked_parameters_to_half_a_hidden_channel():
    for asked in (5000, 6789, 30_000):
        assert abs(equal_ffn(48, 8, asked).params() - asked) <= (2 * 48 + 2) / 2
    block = equal_ffn(48, 8, ffn(48, 97, 8).params())
    assert isinstance(block, FfnBlock)
    assert block.hidden == 97
    with pytest.raises(UsageError, match="take fewer channels"):
        equal_ffn(48, 8, 100)


def test_unequal_networks_are_refused():
    narrow, wide = ((parse_key(f"conv(in=3,out={width},k=3,s=2)@32"),) for width in (8, 16))
    with pytest.raises(UsageError, match="not equally large"):
        check_equal([narrow, wide])

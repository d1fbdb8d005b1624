"""Which entries rows can tell apart: checked on rows small enough to see it."""

from luts.estimate.design import identify, partners

CHAIN = [
    ("stem", "a", "a", "head"),
    ("stem", "a", "head"),
    ("stem", "b", "head"),
    ("stem", "b", "b", "a", "head"),
]
"""Whatever stem and head cost each, all models hold one of both."""


def test_blocks_of_all_models_are_known_as_a_sum():
    assert identify(["a", "b", "head", "never", "stem"], CHAIN) == {
        "a": "alone",
        "b": "alone",
        "head": "sum",
        "never": "prior",
        "stem": "sum",
    }
    together = partners(["a", "b", "head", "never", "stem"], CHAIN)
    assert together.keys() == {"head", "stem"}
    assert all(len(names) == 1 for names in together.values())
    assert together["stem"][0] in ("base", "head")


def test_a_removal_tells_what_no_whole_network_does():
    assert identify(["head"], [*CHAIN, ("stem", "a")])["head"] == "alone"


def test_widths_that_neighbours_share_move_between_them():
    """wide or narrow stem, each followed by a block of its own: the pair's sum is all there is."""
    rows = [
        ("wide", "from_wide"),
        ("narrow", "from_narrow"),
        ("wide", "from_wide", "x"),
        ("narrow", "from_narrow"),
    ]
    keys = ["from_narrow", "from_wide", "narrow", "wide", "x"]
    together = partners(keys, rows)
    assert identify(keys, rows)["x"] == "alone"
    assert together["wide"] == ("from_wide",)
    assert together["from_narrow"] == ("narrow",)


def test_fewer_models_than_blocks_tell_none_alone():
    rows = [("a", "b"), ("b", "c")]
    assert set(identify(["a", "b", "c"], rows).values()) == {"sum"}

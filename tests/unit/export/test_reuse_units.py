import pytest

from orchestrator.export.reuse.fragment import ReusableUnit, donor_of, owners, units_of
from search.blocks import parse_keys
from search.networks import build_network
from search.spaces import get_arch

SHELL = "mvit.shell(c=8,d=16,patch=2)@8"
LAYER = "mvit.layer(d=16,heads=2,head_dim=8,ratio=2,patch=2)@8"
KEYS = ("conv(in=3,out=8,k=3,s=2)@16", SHELL, LAYER, LAYER, "head.fc(in=8,classes=10)@8")


def test_units_of_a_mobilevit_block() -> None:
    units = units_of(parse_keys(KEYS))
    assert [(u.part, u.path) for u in units] == [
        ("block", "0"),
        ("before", "1"),
        ("layer", "1.layers.0"),
        ("layer", "1.layers.1"),
        ("after", "1"),
        ("block", "2"),
    ]
    assert [u.first for u in units] == [True, False, False, False, False, False]
    assert [u.last for u in units] == [False, False, False, False, False, True]


def test_paths_are_those_of_the_network() -> None:
    specs = get_arch("autovit-xxs-paper").blocks()
    modules = dict(build_network(specs).named_modules())
    assert all(unit.path in modules for unit in units_of(specs))


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS[1:], KEYS[:-1]])
def test_only_whole_networks_have_units(keys: tuple[str, ...]) -> None:
    assert units_of(parse_keys(keys)) == ()


def test_equal_units_share_a_fragment_wherever_they_stand() -> None:
    first, second = (u for u in units_of(parse_keys(KEYS)) if u.part == "layer")
    assert first.identity == second.identity
    before, after = (u for u in units_of(parse_keys(KEYS)) if u.key == SHELL)
    assert before.identity != after.identity
    assert (
        ReusableUnit(KEYS[0], "block", True, False, "0").identity
        != ReusableUnit(KEYS[0], "block", False, False, "0").identity
    )


def test_operators_belong_to_the_unit_of_their_module() -> None:
    units = units_of(parse_keys(KEYS))
    paths = ["0.conv", "1.local", None, "1", "1.layers.0.norm1", "1.layers.1", "1.norm", "1", None, "2.fc"]
    owned = owners(paths, units)
    expected = [0, 1, 1, 1, 2, 3, 4, 4, 5, 5]
    assert owned == [units[index] for index in expected]


def test_donor_has_a_convolution_behind_the_unit() -> None:
    stem, before, layer, *_, head = units_of(parse_keys(KEYS))
    assert [len(list(donor_of(unit).module.children())) for unit in (stem, before, head)] == [2, 3, 2]
    assert [u.part for u in donor_of(before).units] == ["before", "after"]
    assert donor_of(layer).units[0].path == ""

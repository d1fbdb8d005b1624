"""Spaces that no file of the package knows: their architectures carry them, registering checks them."""

import dataclasses
import pickle
import random
from unittest import mock

import pytest

from luts.format.errors import UsageError
from luts.format.registry import NAME
from luts.format.schema import NAME_PATTERN
from search.blocks import Conv, FcHead
from search.spaces import Arch, Space, Stage, get_arch, get_space, list_spaces, register_space
from search.spaces.registry import ARCHS, SPACES

STEM = Stage("stem", "conv", (("stride", 2), ("kernel", 3)), (("width", (8, 16)),))
OWN = Space("own", (STEM,), (1,), (8, 16), ("fc",), 8, 10)
ARCH = Arch(OWN, 8, "fc", 10, ((16,),))


@pytest.fixture
def empty():
    with mock.patch.dict(SPACES.items), mock.patch.dict(ARCHS.items):
        yield


def test_an_architecture_needs_no_registry_to_make_its_blocks():
    assert OWN not in list_spaces()
    assert ARCH.blocks() == (Conv(8, 3, 16, 3, 2), FcHead(4, 16, 10))
    assert ARCH.with_resolution(16).keys()[-1] == "head.fc(in=16,classes=10)@8"
    assert OWN.from_document(ARCH.to_document()) == ARCH


def test_a_pickled_architecture_brings_its_space_once():
    archs = [OWN.sample(random.Random(seed)) for seed in range(4)]
    OWN.size()
    back = [pickle.loads(pickle.dumps(arch)) for arch in archs]  # noqa: S301
    assert back == archs
    assert [arch.blocks() for arch in back] == [arch.blocks() for arch in archs]
    assert len({id(arch.search_space) for arch in back}) == 1
    assert back[0].search_space == OWN
    assert "_completions" not in vars(back[0].search_space)


def test_architectures_are_equal_whatever_part_of_the_space_made_them():
    for space in list_spaces():
        part = space.restricted(space.resolutions[:1])
        arch = part.sample(random.Random(0))
        assert {arch} == {Arch(space.with_classes(3), arch.resolution, arch.head, arch.classes, arch.stages)}
    assert dataclasses.replace(ARCH, search_space=dataclasses.replace(OWN, name="other")) != ARCH


def test_a_registered_space_is_known_by_name_with_its_architectures(empty):
    assert register_space(OWN, {"own-wide": ARCH}) is OWN
    assert get_space("own") is OWN
    assert get_arch("own-wide") == ARCH
    with pytest.raises(UsageError, match="'own' is registered twice"):
        register_space(OWN)
    with pytest.raises(UsageError, match="'own-wide' is registered twice"):
        again = dataclasses.replace(OWN, name="again")
        register_space(again, {"own-wide": dataclasses.replace(ARCH, search_space=again)})
    with pytest.raises(UsageError, match="nasbench-macro,.* own"):
        get_space("again")


def stage(**changes):
    return dataclasses.replace(STEM, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "My space"}, "cannot be a name"),
        ({"stages": (stage(fixed=(("kernel", 3),)),)}, "stem needs a fixed `stride`"),
        ({"stages": (stage(choices=(("depth", (1,)),)),)}, "a choice `width`"),
        ({"stages": (stage(choices=(("width", (16, 8)),)),)}, "not in ascending order"),
        ({"stages": (stage(kind="konv"),)}, "unknown stage kind 'konv'; did you mean conv"),
        ({"stages": (stage(fixed=(("stride", 2),)),)}, "own makes no blocks .KeyError: 'kernel'"),
        ({"heads": ("softmax",)}, "unknown head 'softmax'"),
        ({"heads": ()}, "needs heads"),
        ({"default_resolution": 32}, "its default among its resolutions"),
        ({"stage_counts": (1, 2)}, r"\[1, 2\] stages, but it has 1"),
        (
            {"stages": (STEM, stage(name="b", choices=(("width", (4,)),))), "stage_counts": (2,)},
            "no architecture",
        ),
    ],
)
def test_a_space_that_makes_no_networks_is_refused_in_one_line(empty, changes, says):
    before = list_spaces()
    with pytest.raises(UsageError, match=says) as refused:
        register_space(dataclasses.replace(OWN, **changes))
    assert "\n" not in str(refused.value)
    assert list_spaces() == before


def test_an_architecture_of_another_space_or_outside_of_its_own_is_refused(empty):
    with pytest.raises(UsageError, match="autovit-nano, not of own"):
        register_space(OWN, {"foreign": get_space("autovit-nano").sample(random.Random(0))})
    with pytest.raises(UsageError, match="width=12 is not one of"):
        register_space(OWN, {"outside": dataclasses.replace(ARCH, stages=((12,),))})
    assert "own" not in SPACES


def test_names_of_spaces_are_those_that_luts_take():
    assert NAME == NAME_PATTERN

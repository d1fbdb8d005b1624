"""Spaces outside of the package: unregistered, registered, refused."""

import dataclasses
import pickle
import random
from unittest import mock

import pytest

from luts.format.registry import NAME
from luts.format.schema import NAME_PATTERN
from search.blocks import Conv, FcHead
from search.spaces import Arch, Space, Stage, get_arch, get_space, list_spaces, register_space
from search.spaces.registry import ARCHS, SPACES
from tests.support.errors import raises

STEM = Stage("stem", "conv", (("stride", 2), ("kernel", 3)), (("width", (8, 16)),))
OWN = Space("own", (STEM,), (1,), (8, 16), ("fc",), 8, 10)
ARCH = Arch(OWN, 8, "fc", 10, ((16,),))


@pytest.fixture
def empty():
    with mock.patch.dict(SPACES.items), mock.patch.dict(ARCHS.items):
        yield


def test_unregistered_architecture_makes_its_blocks():
    assert OWN not in list_spaces()
    assert ARCH.blocks() == (Conv(8, 3, 16, 3, 2), FcHead(4, 16, 10))
    assert ARCH.with_resolution(16).keys()[-1] == "head.fc(in=16,classes=10)@8"
    assert OWN.from_document(ARCH.to_document()) == ARCH


def test_unpickled_architectures_share_their_space():
    archs = [OWN.sample(random.Random(seed)) for seed in range(4)]
    OWN.size()
    back = [pickle.loads(pickle.dumps(arch)) for arch in archs]  # noqa: S301
    assert back == archs
    assert [arch.blocks() for arch in back] == [arch.blocks() for arch in archs]
    assert len({id(arch.search_space) for arch in back}) == 1
    assert back[0].search_space == OWN
    assert "_completions" not in vars(back[0].search_space)


def test_architectures_of_parts_of_a_space_are_equal():
    for space in list_spaces():
        part = space.restricted(space.resolutions[:1])
        arch = part.sample(random.Random(0))
        assert {arch} == {Arch(space.with_classes(3), arch.resolution, arch.head, arch.classes, arch.stages)}
    assert dataclasses.replace(ARCH, search_space=dataclasses.replace(OWN, name="other")) != ARCH


def test_registered_space_is_known_by_name(empty):
    assert register_space(OWN, {"own-wide": ARCH}) is OWN
    assert get_space("own") is OWN
    assert get_arch("own-wide") == ARCH
    with raises("name_taken"):
        register_space(OWN)
    again = dataclasses.replace(OWN, name="again")
    with raises("name_taken"):
        register_space(again, {"own-wide": dataclasses.replace(ARCH, search_space=again)})
    with raises("unknown_space"):
        get_space("again")


def stage(**changes):
    return dataclasses.replace(STEM, **changes)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"name": "My space"}, "invalid_name"),
        ({"stages": (stage(fixed=(("kernel", 3),)),)}, "invalid_space"),
        ({"stages": (stage(choices=(("depth", (1,)),)),)}, "invalid_space"),
        ({"stages": (stage(choices=(("width", (16, 8)),)),)}, "invalid_space"),
        ({"stages": (stage(kind="konv"),)}, "unknown_stage_kind"),
        ({"stages": (stage(fixed=(("stride", 2),)),)}, "invalid_space"),
        ({"heads": ("softmax",)}, "unknown_head"),
        ({"heads": ()}, "invalid_space"),
        ({"default_resolution": 32}, "invalid_space"),
        ({"stage_counts": (1, 2)}, "invalid_space"),
        (
            {"stages": (STEM, stage(name="b", choices=(("width", (4,)),))), "stage_counts": (2,)},
            "invalid_space",
        ),
    ],
)
def test_impossible_space_is_refused_in_one_line(empty, changes, code):
    before = list_spaces()
    with raises(code) as refused:
        register_space(dataclasses.replace(OWN, **changes))
    assert "\n" not in str(refused.value)
    assert list_spaces() == before


def test_foreign_architecture_is_refused(empty):
    with raises("not_in_space"):
        register_space(OWN, {"foreign": get_space("autovit-nano").sample(random.Random(0))})
    with raises("not_in_space"):
        register_space(OWN, {"outside": dataclasses.replace(ARCH, stages=((12,),))})
    assert "own" not in SPACES


def test_space_names_are_valid_in_luts():
    assert NAME == NAME_PATTERN

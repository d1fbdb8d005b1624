"""Which subnets a step trains, and that only what they use changes, whatever sampler drew them."""

import random
from typing import Any

import pytest

from search.spaces import Arch, get_space, list_spaces
from search.supernet.recipe.samplers import STRATA, get_sampler, largest, smallest
from tests.support.errors import raises

NANO = get_space("autovit-nano")


def _draws(sampler, count, resolution=64):
    return [arch for seed in range(count) for arch in sampler.draw(random.Random(seed), resolution)]


def test_uniform_is_the_spaces_own_draw():
    sampler = get_sampler("uniform", NANO)
    assert _draws(sampler, 20) == [NANO.sample(random.Random(seed), (64,)) for seed in range(20)]
    assert not sampler.in_place


def macs(arch):
    return arch.macs().total


@pytest.mark.parametrize("space", list_spaces(), ids=lambda space: space.name)
def test_sandwich_holds_the_largest_the_smallest_and_others(space):
    sampler = get_sampler("sandwich", space, randoms=3)
    resolution = space.resolutions[0]
    archs = sampler.draw(random.Random(0), resolution)
    assert len(archs) == 5
    assert {arch.resolution for arch in archs} == {resolution}
    others = [space.sample(random.Random(seed)) for seed in range(50)]
    # a network that scores tokens has more weights
    size = macs if space.name.startswith("vit-tokens") else Arch.params
    assert size(archs[0]) >= max(map(size, others))
    assert archs[1].params() <= min(arch.params() for arch in others)
    assert sampler.in_place


def test_a_sandwich_within_a_range_learns_from_its_largest():
    sizes = sorted(arch.params() for arch in _draws(get_sampler("uniform", NANO), 200))
    sandwich = get_sampler("sandwich", NANO, within=(sizes[50], sizes[150]))
    first, second, *_ = sandwich.draw(random.Random(0), 64)
    others = [
        arch.params() for arch in _draws(get_sampler("uniform", NANO, within=(sizes[50], sizes[150])), 200)
    ]
    assert first.params() >= max(others) > min(others) >= second.params()


def test_balanced_draws_every_range_of_sizes_as_often():
    sampler: Any = get_sampler("balanced", NANO)
    sizes = [arch.params() for arch in _draws(sampler, 800)]
    counts = [sum(low <= size <= high for size in sizes) for low, high in sampler.strata]
    assert sum(counts) == len(sizes) == 800
    assert len(counts) > STRATA / 2
    expected = 800 / len(counts)
    assert all(abs(count - expected) < 4 * expected**0.5 for count in counts)
    uniform = [arch.params() for arch in _draws(get_sampler("uniform", NANO), 800)]
    crowd = [sum(low <= size <= high for size in uniform) for low, high in sampler.strata]
    assert min(crowd) < expected / 2, "the space's own draws are not balanced by themselves"


@pytest.mark.parametrize("name", ["uniform", "sandwich", "balanced"])
def test_parameter_range_holds_for_every_subnet(name):
    sizes = sorted(arch.params() for arch in _draws(get_sampler("uniform", NANO), 200))
    within = (sizes[50], sizes[100])
    for arch in _draws(get_sampler(name, NANO, within=within), 60):
        assert within[0] <= arch.params() <= within[1]


def test_range_without_architectures_is_refused():
    params = [arch.params() for arch in NANO]
    with raises("empty_params_range") as caught:
        get_sampler("uniform", NANO, within=(1, 2))
    assert str(caught.value).endswith(f"it has {min(params)} to {max(params)}")


def test_numbers_of_stages_come_as_often_as_their_weights_say():
    for within in (None, (90_000, 160_000)):
        for weights, share in (((), 0.5), ((3.0, 1.0), 0.75)):
            sampler = get_sampler("uniform", NANO, within=within, stage_weights=weights)
            short = sum(len(arch.stages) == 3 for arch in _draws(sampler, 2000))
            assert short / 2000 == pytest.approx(share, abs=0.05), (within, weights)


def test_ranges_of_parameters_come_as_often_as_their_weights_say():
    sampler: Any = get_sampler("balanced", NANO, params_weights=(1.0, 2.0, 5.0))
    sizes = [arch.params() for arch in _draws(sampler, 2000)]
    shares = [sum(low <= size <= high for size in sizes) / 2000 for low, high in sampler.strata]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.05)


@pytest.mark.parametrize("space", list_spaces(), ids=lambda space: space.name)
def test_extremes_are_members_of_their_space(space):
    space.check(largest(space))
    space.check(smallest(space))

"""What a recipe means in a space: its scope, and the one network where it trains one alone."""

from __future__ import annotations

from dataclasses import replace

from luts.format.errors import UsageError
from search.spaces import Arch, Space, arch_from_json
from search.spaces.scope import Scope
from search.supernet.recipe.recipe import Recipe
from search.supernet.recipe.sizes import Sizes


def resolutions_of(recipe: Recipe, space: Space) -> tuple[int, ...]:
    """The recipe's resolutions in a space; `UsageError` for one that the space does not have."""
    if recipe.resolutions == "space":
        return space.resolutions
    foreign = set(recipe.resolutions) - set(space.resolutions)
    if foreign:
        raise UsageError(f"{space.name} has no resolution {sorted(foreign)}; known: {space.resolutions}")
    only = only_arch(recipe, space)
    return recipe.resolutions or (space.default_resolution if only is None else only.resolution,)


def part_of(recipe: Recipe, space: Space) -> Space:
    """The space with the recipe's numbers of stages alone; `UsageError` for one that it does not have."""
    foreign = set(recipe.stage_counts) - set(space.stage_counts)
    if foreign:
        raise UsageError(
            f"{space.name} has no networks of {sorted(foreign)[0]} stages; stage_counts may hold "
            f"{', '.join(map(str, space.stage_counts))}"
        )
    return replace(space, stage_counts=recipe.stage_counts) if recipe.stage_counts else space


def scope_of(recipe: Recipe, space: Space) -> Scope:
    """What the recipe trains of a space, with its number of classes.

    Raises:
        UsageError: a resolution or number of stages that the space does not have, or no network is within
            the range of parameters.
    """
    sides, only = tuple(sorted(resolutions_of(recipe, space))), only_arch(recipe, space)
    if only is not None:
        return Scope(stage_counts=(len(only.stages),), resolutions=sides, params=(only.params(),) * 2)
    counts = Sizes(part_of(recipe, space), recipe.params_range).stage_counts
    return Scope(stage_counts=tuple(sorted(counts)), resolutions=sides, params=recipe.params_range)


def only_arch(recipe: Recipe, space: Space) -> Arch | None:
    """The one network that the recipe trains, if so, with the space's classes; `UsageError` for a foreign one."""
    if recipe.arch is None:
        return None
    arch = arch_from_json(recipe.arch).with_classes(space.default_classes)
    space.check(arch)
    return arch


def check_trained(arch: Arch, recipe: Recipe, space: Space) -> None:
    """`UsageError` where the recipe trained one network alone and this is another."""
    only = only_arch(recipe, space)
    if only is not None and arch not in {
        only.with_resolution(side) for side in resolutions_of(recipe, space)
    }:
        raise UsageError(
            f"these weights are of one network that was trained alone, not of a supernet of {space.name}; "
            f"judge that one ({only.to_json()}), or train the space without --arch"
        )

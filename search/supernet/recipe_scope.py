"""What a recipe means in a space: its images, its resolutions, and the one network where it trains one alone."""

from __future__ import annotations

from luts.errors import UsageError
from search.spaces import Arch, Space, arch_from_json
from search.supernet.data import ImageData
from search.supernet.recipe import Recipe
from search.supernet.sources import open_source


def open_data(source: str, space: Space, recipe: Recipe) -> ImageData:
    """The images of a command-line text, split and sized as a recipe says; raises like `open_source`."""
    side = max(resolutions_of(recipe, space))
    return ImageData(open_source(source), fraction=recipe.held_out, largest_side=side)


def resolutions_of(recipe: Recipe, space: Space) -> tuple[int, ...]:
    """The recipe's resolutions in a space; `UsageError` for one that the space does not have."""
    if recipe.resolutions == "space":
        return space.resolutions
    foreign = set(recipe.resolutions) - set(space.resolutions)
    if foreign:
        raise UsageError(f"{space.name} has no resolution {sorted(foreign)}; known: {space.resolutions}")
    only = only_arch(recipe, space)
    return recipe.resolutions or (space.default_resolution if only is None else only.resolution,)


def only_arch(recipe: Recipe, space: Space) -> Arch | None:
    """The one network that the recipe trains, if so, with the space's classes; `UsageError` for a foreign one."""
    if recipe.arch is None:
        return None
    arch = arch_from_json(recipe.arch).with_classes(space.default_classes)
    space.check(arch)
    return arch

"""Adapt a LUT to another device by measuring a few networks on it."""

from __future__ import annotations

from typing import Any

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import Profile, profile
from orchestrator.tasks.target import Target
from search.spaces.scope import covered_space

FEWEST = 3
"""Fewest networks that determine a device's speed, and whether the LUT fits it at all."""

HELDOUT_EACH = 3
"""One network is held out for so many that are fitted."""


def adapt(ref: str, target: Target | str, networks: int, *, store: LutStore, **options: Any) -> Profile:
    """Make a LUT of a device from another device's LUT and `networks` measured networks, the reference included.

    A third as many more networks are held out, to estimate its error.

    Args:
        ref: The LUT that is adapted; space, resolutions and classes are its own.
        target: The device.
        networks: Number of networks to fit.
        store: LUTs of this machine; the new one is written to the first folder.
        options: Other options of `profile`.

    Raises:
        UsageError: fewer than three networks; others as `profile`.
    """
    if networks < FEWEST:
        raise UsageError(
            f"-n {networks}: at least {FEWEST} networks are needed to determine a device's speed",
            code="too_few_networks",
        )
    found = store.resolve(ref)
    covered = covered_space(store.load(found))
    choice = PlanChoice(
        resolutions=covered.resolutions,
        classes=covered.default_classes,
        design=networks - 1,
        heldout=max(1, networks // HELDOUT_EACH),
        removals="none",
        sources=str(found.path),
    )
    return profile(covered.name, target, choice, store=store, **options)

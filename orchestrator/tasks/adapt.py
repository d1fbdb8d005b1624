"""Another device's LUT made a device's own by a few measured networks."""

from __future__ import annotations

from typing import Any

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import Profile, profile
from orchestrator.tasks.target import Target
from search.spaces.scope import covered_space

FEWEST = 3
"""Networks of which a device's speed, and whether it is alike at all, can be told."""

HELDOUT_EACH = 3
"""One network is held out beside so many that are fitted."""


def adapt(ref: str, target: Target | str, networks: int, *, store: LutStore, **options: Any) -> Profile:
    """A LUT of a device, learned from another device's and from `networks` measured ones, the reference among them.

    A third as many more are held out and judge it.

    Args:
        ref: The LUT that is adapted; space, resolutions and classes are its own.
        target: The device.
        networks: To fit.
        store: Where the LUT is found, and the new one written.
        options: Further ones of `profile`.

    Raises:
        UsageError: fewer than three networks; others as `profile`.
    """
    if networks < FEWEST:
        raise UsageError(f"-n {networks}: {FEWEST} networks are the fewest that tell a device's speed")
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

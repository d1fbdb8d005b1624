"""Adapt a LUT to another device by measuring a few networks on it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from luts.format.errors import UsageError
from orchestrator.tasks.options import BUDGET, REQUIRED, argument, option
from orchestrator.tasks.plan import PlanOptions, ProfileCommand, RunOptions
from orchestrator.tasks.profile import Profile, profile
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.target import Target
from search.spaces.scope import covered_space

FEWEST = 3
"""Fewest networks that determine a device's speed, and whether the LUT fits it at all."""

HELDOUT_EACH = 3
"""One network is held out for so many that are fitted."""


@dataclass(frozen=True, kw_only=True)
class AdaptCommand(RunOptions):
    """Adapt another device's LUT: measure a few networks, and learn the rest from the LUT.

    Same as bench profile --from LUT with a plan of a few networks of the LUT's space, resolutions and classes.
    """

    lut: str = argument(REQUIRED, "LUT to adapt: folder, or parts of device/space/variant.", metavar="LUT")
    target: Target
    networks: int = option(
        5, "Networks to fit; a third as many more are held out.", flag="-n", minimum=FEWEST, panel=BUDGET
    )


def adapt(options: AdaptCommand, progress: Progress = silent) -> Profile:
    """Make a LUT of a device from another device's LUT and a few measured networks.

    Raises:
        UsageError: fewer than three networks; others as `profile`.
    """
    networks, store = options.networks, options.open_store(progress, create=True)
    if networks < FEWEST:
        raise UsageError(
            f"-n {options.networks}: at least {FEWEST} networks are needed to determine a device's speed",
            code="too_few_networks",
        )
    found = store.resolve(options.lut)
    covered = covered_space(store.load(found))
    plan = PlanOptions(
        resolutions=covered.resolutions,
        classes=covered.default_classes,
        design=networks - 1,
        heldout=max(1, networks // HELDOUT_EACH),
        removals="none",
    )
    run = {field.name: getattr(options, field.name) for field in fields(RunOptions)}
    command = ProfileCommand(
        **run, space=covered.name, target=options.target, plan=plan, sources=str(found.path)
    )
    return profile(command, progress)

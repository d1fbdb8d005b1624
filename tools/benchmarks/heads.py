"""A LUT of 1000 classes used for 10: predictions beside measurements, without and with classifiers measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

from luts.format.store import LutStore
from orchestrator.measure.validate import Validation
from orchestrator.tasks.plan import PlanChoice
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import DeviceOptions
from orchestrator.tasks.validate import ValidateCommand, validate

SPACE = "autovit-xxs"
PROFILED, USED = 1000, 10
NETWORKS = 20
MODELS = 40
BUDGET_S, CHECK_S = 300.0, 150.0
"""Of each profile and of each check: half an hour in all, with exports."""


def main(
    device: str = "host",
    space: str = SPACE,
    models: int = MODELS,
    networks: int = NETWORKS,
    budget_s: float = BUDGET_S,
    check_s: float = CHECK_S,
) -> str:
    """The section: profile twice, with and without `--heads`, and measure the same networks after each."""
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as folder:
        for heads in ((), (USED, PROFILED)):
            store = LutStore([Path(folder) / str(len(heads))])
            choice = PlanChoice(classes=PROFILED, models=models, heads=heads)
            lut = profile(space, device, choice=choice, budget_s=budget_s, store=store)
            for classes in (PROFILED, USED):
                checked = validate(
                    ValidateCommand(
                        lut=str(lut.path),
                        target=DeviceOptions(device),
                        count=networks,
                        budget_s=check_s,
                        classes=classes,
                    )
                )
                rows.append(_row(heads, classes, checked))
                errors.append(checked.mape)
    return "\n".join(
        [
            "## Classifiers of other numbers of classes\n",
            f"LUTs of `{space}` on `{device}`, profiled with {PROFILED} classes, {models} models; {networks} "
            "random networks that they have not seen, measured after each. In the second pair of rows the profile "
            f"had `--heads {USED},{PROFILED}`.\n",
            "| classifiers measured | networks of | mean error | largest | within the interval | Kendall's tau |",
            "|---|---|---|---|---|---|",
            *rows,
            f"\nUsed for {USED} classes, the LUT that knows {PROFILED} alone has an error that differs by "
            f"{errors[1] - errors[0]:+.2%} from that for its own; with both measured by "
            f"{errors[3] - errors[2]:+.2%}. Each pair is one profile, so no interval is over profiles.",
        ]
    )


def _row(heads: tuple[int, ...], classes: int, checked: Validation) -> str:
    tau = "-" if checked.kendall_tau is None else f"{checked.kendall_tau:.3f}"
    measured = " and ".join(map(str, heads or (PROFILED,)))
    return (
        f"| {measured} | {classes} classes | {100 * checked.mape:.2f} % | {100 * checked.max_error:.2f} % "
        f"| {100 * checked.coverage:.0f} % | {tau} |"
    )

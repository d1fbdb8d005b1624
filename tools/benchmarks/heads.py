"""A LUT of 1000 classes used for 10: predictions and measurements, without and with classifiers measured."""

from __future__ import annotations

import tempfile
from pathlib import Path

from luts.format.store import LutStore
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import profile
from orchestrator.tasks.target import DeviceOptions, Target
from orchestrator.tasks.validate import ValidateCommand, validate
from tools.tables import Tables

SPACE = "autovit-xxs"
PROFILED, USED = 1000, 10
NETWORKS = 20
MODELS = 40
BUDGET_S, CHECK_S = 300.0, 150.0
"""Time limits of each profile and each check: half an hour in total, with exports."""


def main(
    device: str = "host",
    space: str = SPACE,
    models: int = MODELS,
    networks: int = NETWORKS,
    budget_s: float = BUDGET_S,
    check_s: float = CHECK_S,
) -> Tables:
    """Profile with and without `--heads`; measure the same unseen networks after each profile."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for heads in ((), (USED, PROFILED)):
            store = LutStore([Path(folder) / str(len(heads))])
            plan = PlanOptions(classes=PROFILED, models=models, heads=heads)
            lut = profile(
                ProfileCommand(space=space, target=Target(device), plan=plan, budget_s=budget_s, store=store)
            )
            for classes in (PROFILED, USED):
                command = ValidateCommand(
                    lut=str(lut.path),
                    target=DeviceOptions(device),
                    count=networks,
                    budget_s=check_s,
                    classes=classes,
                )
                checked = validate(command)
                rows.append(
                    {
                        "classifiers measured": " and ".join(map(str, heads or (PROFILED,))),
                        "networks of": f"{classes} classes",
                        "mean error, %": 100 * checked.mape,
                        "largest, %": 100 * checked.max_error,
                        "within the interval, %": 100 * checked.coverage,
                        "Kendall's tau": checked.kendall_tau,
                    }
                )
    return {"Classifiers of other numbers of classes": rows}

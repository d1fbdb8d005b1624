"""Options of every command that profiles: how long, to which end, which run, and where its LUT goes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.lut_store import open_store
from orchestrator.cli.options import BudgetOption, PaceOption, SelfTestOption, WorkersOption
from orchestrator.tasks.parsing import parse_budget, parse_name, parse_pace, parse_percent


@dataclass(frozen=True)
class ProfilingOptions:
    """When measuring ends, and what is done with what is there already."""

    budget: BudgetOption = "15m"
    narrow: Annotated[str | None, typer.Option(help="Stop at predictions within this; 1.5%.")] = None
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew where a run was not finished.")] = False
    reuse: Annotated[
        bool, typer.Option("--reuse", help="Keep the LUT of an equal run that was finished.")
    ] = False
    luts: Annotated[Path | None, typer.Option("--luts", help="Where LUTs are written.")] = None
    self_test: SelfTestOption = True
    pace: PaceOption = None
    workers: WorkersOption = None

    def parse(self) -> dict[str, Any]:
        """By the names of `tasks.profile`'s arguments. UsageError for what can't be one."""
        return {
            "budget_s": parse_budget(self.budget),
            "narrow": None if self.narrow is None else parse_percent(self.narrow, "--narrow") / 100,
            "fresh": self.fresh,
            "reuse": self.reuse,
            "store": open_store(self.luts, made=True),
            "self_test": self.self_test,
            "pace_us": parse_pace(self.pace),
            "workers": self.workers,
        }


@dataclass(frozen=True)
class RunOptions:
    """Names of what a profile of one device leaves."""

    name: Annotated[
        str | None, typer.Option(help="Of the device in the LUT, where its own would not tell it apart.")
    ] = None
    run_folder: Annotated[Path | None, typer.Option("--run", help="Folder of the run's journal.")] = None

    def parse(self) -> dict[str, Any]:
        """By the names of `tasks.profile`'s arguments. UsageError for what can't be a name."""
        return {
            "name": None if self.name is None else parse_name(self.name),
            "run_folder": self.run_folder,
        }

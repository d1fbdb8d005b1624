"""Options that say what a profile covers and how large it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from orchestrator.tasks.parsing import parse_heads, parse_resolutions
from orchestrator.tasks.plan import PlanChoice


@dataclass(frozen=True)
class PlanOptions:
    """What is measured."""

    resolution: Annotated[
        str | None, typer.Option(help="Input sizes, e.g. 192,256; the space's default.")
    ] = None
    classes: Annotated[int | None, typer.Option(min=1, help="Of the classifier; the space's default.")] = None
    heads: Annotated[
        str | None,
        typer.Option(
            help="Classifiers of several numbers of classes, e.g. 10,100,1000: a few networks more each."
        ),
    ] = None
    models: Annotated[
        int | None, typer.Option(min=1, help="Whole models in all; as many as fit the budget.")
    ] = None
    design: Annotated[int | None, typer.Option(min=0, help="Design models; one for three block keys.")] = None
    heldout: Annotated[
        int | None, typer.Option(min=0, help="Models held out; a fifth of all, at least 10.")
    ] = None
    removals: Annotated[
        str | None, typer.Option(help="all, reference or none: whose blocks are removed or swapped.")
    ] = None
    like: Annotated[
        str | None, typer.Option(help="LUT of a similar device: latencies to expect, for the plan.")
    ] = None
    seed: Annotated[int, typer.Option(help="Of plan and schedule.")] = 0

    @property
    def choice(self) -> PlanChoice:
        """What the task takes."""
        return PlanChoice(
            parse_resolutions(self.resolution),
            self.classes,
            self.models,
            self.design,
            self.heldout,
            self.removals,
            self.like,
            self.seed,
            parse_heads(self.heads),
        )

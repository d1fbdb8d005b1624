"""What transformer layers are worth in networks that are trained: top-1 where they add nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from search.supernet.inherit import InheritedAccuracy
from search.supernet.model.supernet import Supernet
from search.supernet.train.checkpoint import load_supernet
from tools.studies._supernets import Supernets, Training

LAYER_OUTPUTS = (".proj", ".fc2")
"""What writes into the residual stream of a transformer layer: of its attention and of its MLP."""


def layers_table(setup: Supernets, trained: Mapping[str, Sequence[Training]]) -> str:
    """Mean top-1 of a setup's networks, as trained and without layers: all of them, those of each stage.

    Args:
        setup: Whose trainings these are.
        trained: By the name of a row: a supernet, or every network alone.
    """
    whole = Supernet(setup.space)
    stages = [stage.name for stage in setup.space.stages if layer_outputs(whole, _within(stage.name))]
    withins = ("", *map(_within, stages))
    lines = [
        ["mean top-1", "as trained", "without any", *(f"without those of {stage}" for stage in stages)],
        ["---"] * (len(withins) + 2),
    ]
    for name, row in trained.items():
        trained_top1 = [value for each in setup.inherited(row) for value in each.values()]
        top1 = [statistics.fmean(trained_top1), *(_without(setup, row, within) for within in withins)]
        lines.append([name, *(f"{100 * value:.2f}" for value in top1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _within(stage: str) -> str:
    return f".{stage}_"


@torch.no_grad()
def _without(setup: Supernets, runs: Sequence[Training], within: str) -> float:
    top1: list[float] = []
    for run in runs:
        supernet, info = load_supernet(run.folder)
        for parameter in layer_outputs(supernet, within):
            parameter.zero_()
        judge = InheritedAccuracy(supernet, info, setup.images, final=True)
        judge.move_to(setup.options.on)
        top1 += map(judge.accuracy, setup.asked(run))
    return statistics.fmean(top1)


def layer_outputs(network: nn.Module, within: str = "") -> list[nn.Parameter]:
    """Weights and biases of what transformer layers add to their input; of those with `within` in their names."""
    named = [(name.rpartition(".")[0], parameter) for name, parameter in network.named_parameters()]
    return [parameter for name, parameter in named if within in name and name.endswith(LAYER_OUTPUTS)]

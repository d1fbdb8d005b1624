"""Options of `bench search`: the phones, what a network may cost, and how to search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

import typer

from luts.format.errors import UsageError
from luts.format.store import LutStore
from orchestrator.tasks.parsing import parse_bytes, parse_count, parse_latency, parse_percent, parse_share
from orchestrator.tasks.phones import Phone, open_phone
from search.algorithms import Criterion, SearchSettings, get_strategy


@dataclass(frozen=True)
class PhoneOptions:
    """The phones that a network is for, and what it may cost on each."""

    lut: Annotated[str, typer.Option(help="LUT of the phone that the network is for.")]
    latency: Annotated[str, typer.Option(help="Budget: 10ms, 150us, or 80% of the LUT's reference model.")]
    also: Annotated[
        list[str] | None, typer.Option(help="LUT=LATENCY of a further phone that must meet its own budget.")
    ] = None

    def parse(self, store: LutStore) -> list[Phone]:
        """The first phone and the further ones."""
        phones = [_phone(store, self.lut, self.latency)]
        for text in self.also or ():
            lut, equals, latency = text.rpartition("=")
            if not equals or not lut:
                raise UsageError(
                    f"--also {text!r}: expected a LUT and its latency, e.g. pixel6/autovit-xxs=12ms"
                )
            phones.append(_phone(store, lut, latency))
        return phones


@dataclass(frozen=True)
class LimitOptions:
    """What else a network must hold, and how surely."""

    params: Annotated[str | None, typer.Option(help="At most so many parameters, e.g. 1.8M.")] = None
    macs: Annotated[str | None, typer.Option(help="At most so many conv+linear MACs, e.g. 300M.")] = None
    memory: Annotated[str | None, typer.Option(help="At most so many bytes of fp32 activations: 900KB.")] = (
        None
    )
    confidence: Annotated[
        str, typer.Option(help="Chance that a measured latency is within the budget: 50% to 99.9%.")
    ] = "95%"
    point: Annotated[
        bool, typer.Option("--point", help="Hold the prediction itself to the budget, whatever the chance.")
    ] = False

    def parse(self) -> dict[str, Any]:
        """Fields of `Budget`."""
        given = {"params": self.params, "macs": self.macs}
        counts = {name: int(parse_count(text, f"--{name}")) for name, text in given.items() if text}
        if self.memory:
            counts["memory_bytes"] = int(parse_bytes(self.memory, "--memory"))
        confidence = parse_share(self.confidence, "--confidence")
        if not 0.5 <= confidence <= 0.999:
            raise UsageError(f"--confidence {self.confidence!r}: expected 50% to 99.9%")
        return {**counts, "cautious": not self.point, "confidence": confidence}


@dataclass(frozen=True)
class SettingOptions:
    """How to search."""

    strategy: Annotated[
        str,
        typer.Option(
            help="How architectures are proposed: coarse-to-fine, evolution, random, pareto, or one of your own."
        ),
    ] = "coarse-to-fine"
    objectives: Annotated[
        str, typer.Option(help="What `pareto` trades, of accuracy, latency, params, macs, memory.")
    ] = "accuracy,latency"
    ms_per_loss: Annotated[
        str | None,
        typer.Option(
            help="L + lambda C, L the latency: lambda, what all answers wrong would be worth: 500ms."
        ),
    ] = None
    loss_per_ms: Annotated[
        str,
        typer.Option(help="L + lambda C, L the share of wrong answers: lambda, of each millisecond: 0.2%."),
    ] = "0%"
    additive: Annotated[
        str,
        typer.Option(help="Share of an additive model of the choices in what networks are judged by: 50%."),
    ] = "0%"
    sample: Annotated[
        int,
        typer.Option(min=10, max=100_000, help="Networks evaluated besides, which --additive is fitted to."),
    ] = 100
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0
    draws: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Networks drawn within the budget for the coarse stage.")
    ] = 10_000
    skeletons: Annotated[
        int,
        typer.Option(
            "--top-k", min=1, max=10_000, help="K: skeletons kept of them, or without a supernet networks."
        ),
    ] = 25
    p_depth: Annotated[
        float, typer.Option(min=0, max=1, help="P_d: chance that a mutation changes a depth.")
    ] = 0.2
    p_block: Annotated[
        float, typer.Option(min=0, max=1, help="P_m: chance that a mutation changes a block.")
    ] = 0.4
    population: Annotated[int, typer.Option(min=1)] = 50
    generations: Annotated[int, typer.Option(min=0)] = 20
    parents: Annotated[int, typer.Option(min=1)] = 10
    crossovers: Annotated[int, typer.Option(min=0)] = 25
    mutations: Annotated[int, typer.Option(min=0)] = 25

    def parse(self) -> SearchSettings:
        """The settings that the options describe."""
        known, given = get_args(Criterion), self.objectives.split(",")
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"--objectives: no {unknown[0]!r}; there are {', '.join(known)}")
        objectives = tuple(name for name in known if name in given)
        get_strategy(self.strategy)
        loss_per_ms = parse_share(self.loss_per_ms, "--loss-per-ms")
        ms_per_loss = parse_latency(self.ms_per_loss, "--ms-per-loss") if self.ms_per_loss else 0.0
        if loss_per_ms and ms_per_loss:
            raise UsageError("--ms-per-loss and --loss-per-ms are two readings of one objective; give one")
        additive = parse_share(self.additive, "--additive")
        parsed = {"objectives": objectives, "ms_per_loss": ms_per_loss, "loss_per_ms": loss_per_ms}
        return SearchSettings(**vars(self) | parsed | {"additive": additive})


def _phone(store: LutStore, lut: str, latency: str) -> Phone:
    if latency.endswith("%"):
        return open_phone(lut, reference_percent=parse_percent(latency, "--latency"), store=store)
    return open_phone(lut, latency_ms=parse_latency(latency), store=store)

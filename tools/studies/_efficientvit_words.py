"""What measurements say of EfficientViT's claims, in words that follow from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""A network at a batch, as `MeasuredNetwork.to_dict` has it."""


@dataclass(frozen=True)
class Pair:
    """Two networks, and how much more images a second the paper has of the first; `said` tells it in words."""

    fast: str
    other: str
    claimed: float
    said: str


@dataclass(frozen=True)
class Factor:
    """Throughput of one network over another's, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Whether the first one is faster, as far as the interval decides it."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "not told apart"

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("attention: matrix work", (("attention", "projection"), ("attention", "product"))),
    ("attention: softmax", (("attention", "softmax"),)),
    ("attention: reshape", (("attention", "reshape"),)),
    (
        "attention: the rest",
        tuple(("attention", part) for part in ("normalisation", "activation", "elementwise", "other")),
    ),
)
"""Columns of figure 2's table: what of attention is arithmetic, and what is moving data about."""

TRACE_COLUMNS = (*(title for title, _ in GROUPS), "memory-bound", "GMAC/s, product", "GB/s, copy")


def beside(rows: Sequence[Row], name: str, other: str, batch: int) -> Factor:
    """Throughput of one network over another's at a batch.

    Both ratios are to one reference in the same rounds; their intervals are added in quadrature, which is too wide
    where disturbances are shared.
    """
    one, two = (next(r for r in rows if r["model"] == n and r["batch"] == batch) for n in (name, other))
    if one is two:
        return Factor(1.0, 1.0, 1.0)
    value = two["ratio"] / one["ratio"]
    below = math.hypot(math.log(one["ratio_high"] / one["ratio"]), math.log(two["ratio"] / two["ratio_low"]))
    above = math.hypot(math.log(one["ratio"] / one["ratio_low"]), math.log(two["ratio_high"] / two["ratio"]))
    return Factor(value, value * math.exp(-below), value * math.exp(above))


def of_pairs(pairs: Sequence[Pair], rows: Sequence[Row]) -> str:
    """A sentence for each pair: what the paper has, what is here at each batch, whether the claim holds."""
    batches = sorted({row["batch"] for row in rows})
    told = []
    for pair in pairs:
        factors = {batch: beside(rows, pair.fast, pair.other, batch) for batch in batches}
        shown = ", ".join(f"{factor} at batch {batch}" for batch, factor in factors.items())
        verdicts = {factor.verdict for factor in factors.values()}
        reached = [batch for batch, factor in factors.items() if factor.high >= pair.claimed]
        if verdicts == {"faster"}:
            holds = "The direction holds at every batch"
        elif "faster" in verdicts:
            where = ", ".join(str(b) for b, factor in factors.items() if factor.verdict == "faster")
            holds = f"The direction holds at batch {where} alone"
        else:
            holds = "It does not hold here"
        size = (
            f"the paper's size is reached at batch {', '.join(map(str, reached))}"
            if reached
            else ("the paper's size is reached at no batch")
        )
        told.append(
            f"`{pair.fast}` makes {shown} times the images a second of `{pair.other}`; the paper has {pair.said}. "
            f"{holds}; {size}."
        )
    return "\n".join(f"- {line}" for line in told)


def of_ablations(undone: Sequence[str], rows: Sequence[Row], base: str) -> str:
    """A sentence for each choice: what undoing it does to throughput, at each batch."""
    batches = sorted({row["batch"] for row in rows})
    told = []
    for change in undone:
        factors = {batch: beside(rows, f"{base}-{change}", base, batch) for batch in batches}
        shown = ", ".join(f"{factor} at batch {batch}" for batch, factor in factors.items())
        verdicts = {factor.verdict for factor in factors.values()}
        if verdicts == {"slower"}:
            means = "the paper's choice is the faster one here"
        elif verdicts == {"faster"}:
            means = "the paper's choice costs throughput here; what it brings is accuracy"
        elif len(verdicts) == 1:
            means = "it makes no difference that these intervals tell"
        else:
            means = "which is faster depends on the batch"
        told.append(f"{change}: {shown} of M4's throughput: {means}")
    return "\n".join(f"- {line}." for line in told)


def of_traces(networks: Sequence[Mapping[str, Any]]) -> str:
    """What of each network is memory-bound, and whether the last one's share is below the others'."""
    shares = {network["model"]: memory_bound_share(network["by"]["tracer"]) for network in networks}
    shown = ", ".join(f"{share:.0%} in `{name}`" for name, share in shares.items())
    said = (
        f"Operators whose bytes take longer at the copy's speed than their MACs at the product's take {shown} of "
        "the traced time."
    )
    *others, last = shares
    if others:
        below = all(shares[last] < shares[name] for name in others)
        said += (
            f" The paper's claim is that EfficientViT spends less on them than Swin and DeiT: here `{last}` "
            f"{'does' if below else 'does not'}."
        )
    return said


def memory_bound_share(traced: Mapping[str, Any]) -> float:
    """Of the operators' time, that of memory-bound ones."""
    parts = traced["parts"]
    return math.fsum(part["memory_bound_ms"] for part in parts) / math.fsum(part["ms"] for part in parts)


def trace_row(network: Mapping[str, Any]) -> str:
    """A row of figure 2's table: percent of the latency without the tracer."""
    traced = network["by"]["tracer"]
    times = {(part["kind"], part["part"]): part["ms"] for part in traced["parts"]}
    cells = [
        f"{math.fsum(times.get(key, 0.0) for key in keys) / traced['whole_ms']:.0%}" for _, keys in GROUPS
    ]
    cells += [f"{memory_bound_share(traced):.0%}"]
    cells += [f"{traced['roof']['gmacs_s']:.1f}", f"{traced['roof']['gbytes_s']:.1f}"]
    return f"| `{network['model']}` | {traced['whole_ms']:.2f} | {' | '.join(cells)} |"

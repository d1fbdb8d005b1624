"""Why a budget leaves no architecture, and what would."""

from __future__ import annotations

import numpy as np

from search.algorithms.feasible.errors import InfeasibleError
from search.algorithms.feasible.extremes import completions, least_memory_bytes
from search.algorithms.pricing.compiled import CompiledSpace
from search.algorithms.pricing.costs import Priced
from search.algorithms.pricing.limits import UNLIMITED, Limits
from search.algorithms.record.settings import Budget


def beyond_reach(compiled: CompiledSpace, limits: Limits) -> InfeasibleError:
    """Why no architecture meets the limits besides latency: the first that is out of reach on its own."""
    bounds = [(c, v) for c, v in zip(limits.channels, limits.largest, strict=True) if np.isfinite(v)]
    for channel, bound in bounds:
        least = float(completions(compiled, channel, UNLIMITED)[0][:, 0].min())
        if least > bound:
            floor = channel == compiled.fewness_channel
            edge, remedy = ("largest", "allow fewer") if floor else ("smallest", "allow more")
            return InfeasibleError(
                f"no architecture of {compiled.space.name} has {_bound(compiled, channel, bound)}; "
                f"the {edge} has {_shown(compiled, channel, least)}; {remedy}"
            )
    least_bytes = least_memory_bytes(compiled)
    if least_bytes > limits.memory_bytes:
        return InfeasibleError(
            f"no architecture of {compiled.space.name} has at most {limits.memory_bytes:.0f} bytes of "
            f"activations; the smallest has {least_bytes:.0f} bytes of activations; allow more"
        )
    asked = [_bound(compiled, channel, bound) for channel, bound in bounds]
    if np.isfinite(limits.memory_bytes):
        asked.append(f"at most {limits.memory_bytes:.0f} bytes of activations")
    return InfeasibleError(
        f"no architecture of {compiled.space.name} has {' and '.join(asked)} at any latency"
        f"{_by(compiled, 0)}; allow more"
    )


def _bound(compiled: CompiledSpace, channel: int, bound: float) -> str:
    side = "at least" if channel == compiled.fewness_channel else "at most"
    return f"{side} {_shown(compiled, channel, bound)}"


def _shown(compiled: CompiledSpace, channel: int, value: float) -> str:
    if channel in (compiled.params_channel, compiled.fewness_channel):
        return f"{abs(value):.0f} parameters"
    if channel == compiled.macs_channel:
        return f"{value:.0f} conv+linear MACs"
    return f"{value:.4g} ms by {compiled.lut_names[channel // 2]}"


def _by(compiled: CompiledSpace, lut: int) -> str:
    """By which LUT, where there are several."""
    return f" by {compiled.lut_names[lut]}" if compiled.luts > 1 else ""


def too_slow(compiled: CompiledSpace, budget: Budget, fastest: Priced) -> InfeasibleError:
    """The first LUT's latency is out of reach, given the rest; says the smallest that is not."""
    latencies = (budget.latency_ms, *budget.further_latency_ms)
    asked = [f"{ms:g} ms{_by(compiled, lut)}" for lut, ms in enumerate(latencies)]
    asked += [f"{budget.params} parameters"] if budget.params is not None else []
    asked += [f"at least {budget.least_params} parameters"] if budget.least_params is not None else []
    asked += [f"{budget.macs} conv+linear MACs"] if budget.macs is not None else []
    asked += [f"{budget.memory_bytes} bytes of activations"] if budget.memory_bytes is not None else []
    within = " within the rest" if len(asked) > 1 else ""
    reach = (
        f"the smallest latency that can be reached{within} is {fastest.latency_ms:.4g} ms{_by(compiled, 0)}"
    )
    if budget.cautious:
        reach += (
            f" (its upper bound at {100 * budget.confidence:g} %, which is what counts, "
            f"{fastest.latency_high_ms:.4g} ms)"
        )
    return InfeasibleError(
        f"no architecture of {compiled.space.name} meets {' and '.join(asked)}; {reach}; allow more"
    )

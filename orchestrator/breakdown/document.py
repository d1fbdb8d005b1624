"""A breakdown of several networks as data: what `--json` prints and pictures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.breakdown.attribution import Attribution
from orchestrator.export.kinds import Kind


@dataclass(frozen=True)
class NetworkBreakdown:
    """A network's latency by one method or by both; `parts` is the number of parts of each kind."""

    model: str
    sha256: str
    parts: Mapping[Kind, int]
    attributions: tuple[Attribution, ...]


def document(
    device: dict[str, Any], variant: str, networks: Sequence[NetworkBreakdown], simulated: bool
) -> dict[str, Any]:
    """Everything that is known, in milliseconds."""
    return {
        "device": device,
        "variant": variant,
        "simulated": simulated,
        "networks": [
            {
                "model": network.model,
                "sha256": network.sha256,
                "parts": dict(network.parts),
                "by": {item.method: attribution_document(item) for item in network.attributions},
            }
            for network in networks
        ],
    }


def attribution_document(item: Attribution) -> dict[str, Any]:
    """One method's figures."""
    return {
        "whole_ms": item.whole_ms,
        "unexplained_ms": item.unexplained_ms,
        "shares": {
            kind: {"ms": share.ms, "ci_low": share.low, "ci_high": share.high}
            for kind, share in item.shares.items()
        },
        "notes": list(item.notes),
    }

"""A breakdown of several networks as data: what `--json` prints and pictures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.breakdown.attribution import Attribution
from orchestrator.export.artifacts.variant import Variant
from orchestrator.export.lower.kinds import Kind
from orchestrator.wire.replies import DeviceInfo


@dataclass(frozen=True)
class NetworkBreakdown:
    """A network's latency by one method or by both; `parts` is the number of parts of each kind."""

    model: str
    sha256: str
    parts: Mapping[Kind, int]
    attributions: tuple[Attribution, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "parts": dict(self.parts),
            "by": {item.method: item.to_dict() for item in self.attributions},
        }


@dataclass(frozen=True)
class Breakdown:
    """What the latency of networks is made of, on a device."""

    device: DeviceInfo
    variant: Variant
    networks: tuple[NetworkBreakdown, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: everything that is known, in milliseconds."""
        return {
            "device": self.device.model_dump(),
            "variant": self.variant.name,
            "simulated": self.device.simulated,
            "networks": [network.to_dict() for network in self.networks],
        }

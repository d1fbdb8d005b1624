"""Networks measured side by side as a table has them: what each costs, and on what it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from luts.estimate.statistics import Percentiles
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.counting import Counts
from orchestrator.journal.conditions import MemoryUse, Usage
from orchestrator.measure.session import Measurement
from orchestrator.tasks.batched import Throughput
from orchestrator.tasks.models import Lowered
from orchestrator.tasks.side_by_side import SideBySide, journal_id
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import DeviceInfo


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network: what it costs on paper and on the device, with 95 % intervals.

    Attributes:
        params: None, as the MACs, of a model file.
        ms: Latency; its interval includes the reference's own.
        ratio: To the reference.
        load_ms: Medians of load times; those of a first load and of compiling are None where the runtime does not
            tell, or where the device had loaded the model before.
        loads: Fresh loads, and rounds in all of them.
        percentiles: Of single calls as they ran, where `ms` is what a quiet device takes.
        delegates: Subgraphs handed to a delegate...
        usage: Memory and energy while it ran alone, where the device tells.
        outside: ...and the operators left to other kernels, with their counts. None where the device decides that.
        memory: That the agent takes for it alone; None where nobody asked, or the device does not tell.
        batch: Images of one call; parameters and MACs are those of one image.
    """

    model: str
    sha256: str
    params: int | None
    conv_linear_macs: int | None
    all_macs: int | None
    ms: float
    ci_low: float
    ci_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    load_ms: float
    first_ms: float | None
    compile_ms: float | None
    loads: int
    rounds: int
    percentiles: Percentiles
    usage: Usage
    delegates: int | None
    outside: Mapping[str, int] | None
    memory: MemoryUse | None = None
    batch: int = 1

    @property
    def throughput(self) -> Throughput:
        """Images a second."""
        return Throughput.of(self.batch, self.ms, self.ci_low, self.ci_high)

    def to_dict(self) -> dict[str, Any]:
        """One level, as JSON and tables have it."""
        fields = asdict(self)
        fields.pop("percentiles")
        fields.pop("memory")
        if self.memory:
            fields |= {"memory_bytes": self.memory.resident, "peak_memory_bytes": self.memory.peak}
        fields.pop("usage")
        return fields | self.throughput.columns() | self.percentiles.columns() | self.usage.columns()


@dataclass(frozen=True)
class Setup:
    """On what networks were measured: `noise_floor` is the spread between two loads of one model, relative."""

    device: DeviceInfo
    variant: Variant
    noise_floor: float

    @property
    def simulated(self) -> bool:
        """Whether the numbers are made up."""
        return self.device.simulated

    @property
    def warning(self) -> str:
        """For titles: that the numbers are made up, where they are."""
        return ", SIMULATED: not measured on any device" if self.simulated else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "device": self.device.model_dump(),
            "variant": self.variant.name,
            "noise_floor": self.noise_floor,
        }


@dataclass(frozen=True)
class MeasuredNetworks:
    """Networks measured side by side; `failures` are those that can't be exported or run, with reasons."""

    setup: Setup
    reference: str
    networks: tuple[MeasuredNetwork, ...]
    failures: Mapping[str, str]
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.setup.to_dict() | {
            "reference": self.reference,
            "models": [network.to_dict() for network in self.networks],
            "failures": dict(self.failures),
        }


def setup_of(measurement: Measurement, variant: Variant) -> Setup:
    """On what a measurement was made."""
    return Setup(measurement.hello.device, variant, measurement.estimates.noise_floor)


def measured_networks(
    files: Mapping[str, ModelFile],
    together: SideBySide,
    counts: Mapping[str, Counts],
    lowered: Mapping[str, Lowered],
) -> dict[str, MeasuredNetwork]:
    """Those that have a latency, by name."""
    return {
        name: _measured(name, file, together.measurement, counts.get(name), lowered.get(name))
        for name, file in files.items()
        if name not in together.failures
    }


def _measured(
    name: str, file: ModelFile, measurement: Measurement, counts: Counts | None, lowered: Lowered | None
) -> MeasuredNetwork:
    ratio = measurement.estimates.ratios[journal_id(name)]
    ms, low, high = measurement.ms(journal_id(name))
    low, high = measurement.reference.widen(ms, low, high)
    return MeasuredNetwork(
        model=name,
        sha256=file.sha256,
        params=counts.params if counts else None,
        conv_linear_macs=counts.conv_linear_macs if counts else None,
        all_macs=counts.all_macs if counts else None,
        ms=ms,
        ci_low=low,
        ci_high=high,
        ratio=math.exp(ratio.log_ratio),
        ratio_low=math.exp(ratio.low),
        ratio_high=math.exp(ratio.high),
        **asdict(measurement.loads[journal_id(name)]),
        loads=ratio.loads,
        rounds=ratio.rounds,
        percentiles=measurement.estimation.percentiles(journal_id(name)),
        usage=measurement.usages.get(journal_id(name), Usage(None, None)),
        delegates=lowered.delegates if lowered else None,
        outside=lowered.outside if lowered else None,
    )

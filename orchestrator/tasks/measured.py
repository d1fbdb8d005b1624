"""Models measured together in one interleaved run, and what each of them costs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from luts.estimate.statistics import REPORTED_PERCENTILES, Percentiles, calls_needed
from luts.format.errors import InvalidArtifactError, UsageError
from luts.format.lut import Lut
from luts.format.table import Column, Table, filled
from orchestrator.devices.common.device import Device
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.counting import Counts
from orchestrator.journal.conditions import MemoryUse, Usage
from orchestrator.journal.runs import Run, find_run, runs_root
from orchestrator.measure.engine import EngineOptions, ModelSet
from orchestrator.measure.readiness import ReferenceFailedError
from orchestrator.measure.session import Measurement, measure
from orchestrator.plan.plan import Policy
from orchestrator.tasks.models import Lowered, model_files
from orchestrator.tasks.options import MeasureOptions
from orchestrator.tasks.progress import Note, Progress, silent, steps
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import DeviceInfo

REFERENCE = "reference"
"""Journal id of a LUT's reference: one of the measured models may have the same blocks."""

ON_THE_DEVICE = "the device decides"
"""Operators outside a delegate, for Core ML: they are known only after the load on the device."""


def measure_files(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    reference: str,
    options: MeasureOptions,
    *,
    calls: int = 0,
    reuse: bool = False,
    progress: Progress = silent,
) -> tuple[Measurement, Run]:
    """Measure models by name against the one named `reference`, resuming an open run of the same models.

    The journal names models by `journal_id`. Another pace, or no self-test, makes it another run. Measuring goes on
    until each model has so many `calls`, within the budget. `reuse` reads an identical finished run instead.
    """
    ids = {name: journal_id(name) for name in files}
    pace = [f"pace {options.pace_us} us"] if options.pace_us else []
    untested = [] if options.self_test else ["no self-test"]
    text = " ".join([*(file.sha256 for file in files.values()), *pace, *untested])
    digest = hashlib.sha256(text.encode()).hexdigest()
    subject = ModelSet(
        {ids[name]: file for name, file in files.items()}, ids[reference], digest, options.seed
    )
    run = find_run(runs_root(), f"measure-{device.name}-{variant.name}-{digest[:8]}", reuse=reuse)
    run.name_models({identifier: name for name, identifier in ids.items()})
    policy = replace(Policy.of(variant.is_simulated, options.self_test, options.pace_us), calls=calls)
    measured = measure(
        device,
        variant,
        subject,
        run.journal,
        policy,
        EngineOptions(budget_s=options.budget_s, progress=steps(progress)),
        usage_of=list(subject.files) if calls else (),
    )
    return measured, run


@dataclass(frozen=True)
class JointMeasurement:
    """Models that were measured together: the reference's name, and by name why some were left out."""

    measurement: Measurement
    run: Run
    reference: str
    failures: Mapping[str, str]

    def network(
        self, name: str, file: ModelFile, counts: Counts | None = None, lowered: Lowered | None = None
    ) -> MeasuredNetwork:
        """Return the row of a model that was measured."""
        measurement, identifier = self.measurement, journal_id(name)
        ratio = measurement.estimates.ratios[identifier]
        ms, low, high = measurement.ms_with_reference(identifier)
        return MeasuredNetwork(
            model=name,
            sha256=file.sha256,
            **(asdict(counts) if counts else dict.fromkeys(("params", "conv_linear_macs", "all_macs"))),
            ms=ms,
            ci_low=low,
            ci_high=high,
            ratio=math.exp(ratio.log_ratio),
            ratio_low=math.exp(ratio.low),
            ratio_high=math.exp(ratio.high),
            **asdict(measurement.loads[identifier]),
            loads=ratio.loads,
            rounds=ratio.rounds,
            percentiles=measurement.estimates.percentiles(identifier),
            usage=measurement.usages.get(identifier, Usage(None, None)),
            **(asdict(lowered) if lowered else dict.fromkeys(("delegates", "outside"))),
        )


def measure_together(
    device: Device,
    variant: Variant,
    files: Mapping[str, ModelFile],
    options: MeasureOptions,
    *,
    calls: int = 0,
    progress: Progress = silent,
) -> JointMeasurement:
    """Measure models with the first one that the device can run as the reference.

    Raises:
        ReferenceFailedError: the device can run none of them.
    """
    failures: dict[str, str] = {}
    for reference in files:
        left = {name: file for name, file in files.items() if name not in failures}
        try:
            measurement, run = measure_files(
                device, variant, left, reference, options, calls=calls, progress=progress
            )
        except ReferenceFailedError as error:
            if len(left) == 1:
                raise
            failures[reference] = error.reason
            progress(
                Note(f"{reference} can't be measured: {error.reason}; the next network is the reference")
            )
            continue
        refused = {name: measurement.failures.get(journal_id(name), "") for name in left}
        failures |= {name: reason for name, reason in refused.items() if reason}
        return JointMeasurement(measurement, run, reference, failures)
    raise UsageError("nothing to measure; give at least one network", code="no_network")


def measure_with_lut(
    device: Device,
    variant: Variant,
    lut: Lut,
    models: Mapping[str, ExportSpec],
    options: MeasureOptions,
    *,
    reuse: bool = False,
    progress: Progress = silent,
) -> tuple[Measurement, Run]:
    """Measure models, by model id, together with a LUT's reference, so that both share the same milliseconds.

    Pace and self-test are those of the LUT, whatever `options` say.
    """
    reference = lut.reference
    specs = {REFERENCE: variant.export_spec(reference.blocks), **models}
    files = model_files(variant, specs, options.workers, progress)
    if files[REFERENCE].sha256 != reference.artifact_sha256:
        progress(
            Note("note: this version exports the LUT's reference to other bytes than were measured then")
        )
    like_lut = MeasureOptions(
        budget_s=options.budget_s,
        seed=options.seed,
        self_test=bool(lut.meta.policy.get("self_test", True)),
        pace_us=int(lut.meta.policy.get("pace_us", 0)),
        workers=options.workers,
    )
    measurement, run = measure_files(
        device, variant, files, REFERENCE, like_lut, reuse=reuse, progress=progress
    )
    for name, reason in measurement.failures.items():
        raise InvalidArtifactError(f"{name} can't be measured: {reason}", code="model_failed")
    return measurement, run


def journal_id(name: str) -> str:
    """Return the journal's id of a network's name or path; model ids stay as they are."""
    if name == REFERENCE or (len(name) == 12 and all(c in "0123456789abcdef" for c in name)):
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def outside_text(outside: Mapping[str, int] | None) -> str:
    """Return the operators outside the delegates with their counts, as a table shows them."""
    if outside is None:
        return ON_THE_DEVICE
    return " ".join(f"{name.removeprefix('aten.')}x{count}" for name, count in outside.items()) or "nothing"


PERCENTILE_COLUMNS = tuple(
    column
    for percent in REPORTED_PERCENTILES
    for column in (
        Column(f"p{percent}_ms", f"p{percent}", 3, spare=1),
        Column(f"p{percent}_low", f"p{percent} low", 3, spare=9),
        Column(f"p{percent}_high", "high", 3, spare=9),
    )
)


def percentile_note(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what percentiles are, and for how many of them there were too few calls."""
    missing = [
        percent for percent in REPORTED_PERCENTILES if any(row[f"p{percent}_ms"] is None for row in rows)
    ]
    needed = ", ".join(f"p{percent} needs {calls_needed(percent / 100)}" for percent in missing)
    more = f"; too few calls for an interval: {needed}; give a longer --budget" if missing else ""
    return f"percentiles are of single calls, disturbances included{more}"


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network: what it costs on paper and on the device, with 95 % intervals.

    Attributes:
        params: Parameters; None, like the MACs, for a model file.
        ms: Latency in milliseconds; its interval includes the reference's own.
        load_ms: Median load time. First load and compilation are None if the runtime does not report them, or the
            device had loaded the model before.
        percentiles: Of single calls as they ran, whereas `ms` is what an undisturbed device takes.
        usage: Memory and energy while it ran alone, if the device reports them.
        delegates: Subgraphs handed to a delegate; None if the device decides.
        outside: Operators left to other kernels, with their counts; None if the device decides.
        memory: Memory that the agent takes for it alone; None if not requested or not reported.
        batch: Images per call; parameters and MACs are per image.
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
    def images_s(self) -> tuple[float, float, float]:
        """Images per second with their 95 % interval, low before high."""
        return 1e3 * self.batch / self.ms, 1e3 * self.batch / self.ci_high, 1e3 * self.batch / self.ci_low

    def to_dict(self) -> dict[str, Any]:
        """Return all figures on one level, as in JSON and tables."""
        fields = asdict(self)
        for nested in ("percentiles", "memory", "usage"):
            fields.pop(nested)
        if self.memory:
            fields |= {"memory_bytes": self.memory.resident, "peak_memory_bytes": self.memory.peak}
        rates = zip(("images_s", "images_s_low", "images_s_high"), self.images_s, strict=True)
        return fields | dict(rates) | self.percentiles.columns() | self.usage.columns()


@dataclass(frozen=True)
class Setup:
    """Device, under the name that the user gave it, variant and noise floor of a measurement."""

    target: str
    device: DeviceInfo
    variant: Variant
    noise_floor: float

    @classmethod
    def of(cls, measurement: Measurement, variant: Variant, target: str) -> Setup:
        """Return the setup of a measurement."""
        return cls(target, measurement.hello.device, variant, measurement.estimates.noise_floor)

    @property
    def simulated(self) -> bool:
        """Whether the numbers are simulated."""
        return self.device.simulated

    @property
    def warning(self) -> str:
        """End of a title that marks simulated numbers."""
        return ", SIMULATED: not measured on any device" if self.simulated else ""

    @property
    def title(self) -> str:
        """Title of a table: device and variant."""
        return f"{self.target}, {self.variant.name}{self.warning}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that JSON has of it."""
        return {
            "device": self.device.model_dump(),
            "variant": self.variant.name,
            "noise_floor": self.noise_floor,
        }


@dataclass(frozen=True)
class MeasuredNetworks:
    """Networks measured together.

    Attributes:
        failures: Why other networks could not be exported or run.
        counts: Parameters and MACs by name, also of networks that were not measured.
    """

    setup: Setup
    reference: str
    networks: tuple[MeasuredNetwork, ...]
    failures: Mapping[str, str]
    folder: Path
    counts: Mapping[str, Counts]

    THROUGHPUT: ClassVar = (
        Column("batch", "batch"),
        Column("images_s", "images/s", 1),
        Column("images_s_low", "95 % low", 1),
        Column("images_s_high", "high", 1),
    )
    """Shown if any batch is larger than 1; at batch 1 they repeat the milliseconds."""

    COLUMNS: ClassVar = (
        Column("model", "model"),
        *THROUGHPUT,
        Column("params", "parameters", counted=True, spare=2),
        Column("conv_linear_macs", "conv+linear MACs", counted=True, spare=3),
        Column("all_macs", "all MACs", counted=True, spare=7),
        Column("ms", "ms", 3),
        Column("ci_low", "95 % low", 3),
        Column("ci_high", "high", 3),
        *PERCENTILE_COLUMNS,
        Column("ratio", "to reference", 3),
        Column("ratio_low", "95 % low", 3, spare=2),
        Column("ratio_high", "high", 3, spare=2),
        Column("load_ms", "load ms", 2, spare=4),
        Column("first_ms", "first load ms", 2, spare=6),
        Column("compile_ms", "compiling ms", 1, spare=6),
        Column("memory_mib", "MiB alone", 1, spare=3),
        Column("memory_low", "at least", 1, spare=9),
        Column("memory_high", "at most", 1, spare=9),
        Column("memory_peak", "peak", 1, spare=9),
        Column("energy_mj", "mJ a call", 3, spare=3),
        Column("energy_low", "at least", 3, spare=9),
        Column("energy_high", "at most", 3, spare=9),
        Column("loads", "loads", spare=5),
        Column("rounds", "rounds", spare=8),
        Column("calls", "calls", spare=8),
    )

    LOWERED: ClassVar = (
        Column("model", "model"),
        Column("batch", "batch"),
        Column("delegates", "delegates"),
        Column("outside", "operators outside them"),
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document."""
        return self.setup.to_dict() | {
            "reference": self.reference,
            "models": [network.to_dict() for network in self.networks],
            "failures": dict(self.failures),
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the latencies, how each network was lowered, and notes on both."""
        rows = [network.to_dict() for network in self.networks]
        hidden = self.THROUGHPUT if all(row["batch"] == 1 for row in rows) else ()
        columns = [column for column in filled(self.COLUMNS, rows) if column not in hidden]
        yield Table(self.setup.title, columns, rows)
        if not self.setup.variant.is_simulated:
            lowered = [row | {"outside": outside_text(row["outside"])} for row in rows]
            columns = [column for column in self.LOWERED if column not in hidden]
            yield Table("how each network was lowered", columns, lowered)
        yield (
            f"reference {self.reference}: ratios to it are more precise than milliseconds, whose intervals include "
            f"its own; noise floor {100 * self.setup.noise_floor:.2f} % between two loads"
        )
        if rows:
            yield percentile_note(rows)
